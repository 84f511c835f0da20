"""SHA-RNN: a byte-level language model of LSTMs with a single attention head over a long memory.

Merity 2019, "Single Headed Attention RNN: Stop Thinking With Your Head", arXiv 1911.11423.

The model and its training are the modules directly in this package. Everything else is in
subpackages, whose public names are loaded when they are first used.

Example:
    >>> import sharnn, torch
    >>> model = sharnn.SHARNN(sharnn.ModelConfig(dim=16, boom_dim=64, memory=100))
    >>> logits, state = model(torch.tensor([list(b"The quick brown fox")]))
    >>> logits.shape
    torch.Size([1, 19, 256])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sharnn.checkpoint import load, save
from sharnn.config import ModelConfig
from sharnn.data import Corpus, load_corpus
from sharnn.errors import InputError
from sharnn.evaluate import bits_per_byte
from sharnn.memory import Memory, State
from sharnn.model import SHARNN
from sharnn.optim import Lamb, Muon
from sharnn.recipe import Recipe
from sharnn.run import Result
from sharnn.trainer import Trainer
from sharnn.training import resume, train

if TYPE_CHECKING:
    from sharnn.analysis.explorer import Explorer, explore
    from sharnn.analysis.live import LiveExplorer
    from sharnn.analysis.results import AttentionStatistics
    from sharnn.analysis.statistics import attention_statistics
    from sharnn.analysis.trace import AttentionTrace, trace_attention
    from sharnn.compression.codec import compress, decompress
    from sharnn.inference.sampling import generate, generate_batch
    from sharnn.inference.stepper import Stepper
    from sharnn.interop.author_names import from_reference
    from sharnn.interop.converter import convert
    from sharnn.interop.exporter import export
    from sharnn.interop.onnx_model import OnnxModel
    from sharnn.web.playground import Playground

__version__ = "0.1.0"

# Public names of the subpackages, and the modules that define them.
_LAZY = {
    "AttentionStatistics": "analysis.results",
    "AttentionTrace": "analysis.trace",
    "Explorer": "analysis.explorer",
    "LiveExplorer": "analysis.live",
    "OnnxModel": "interop.onnx_model",
    "Playground": "web.playground",
    "Stepper": "inference.stepper",
    "attention_statistics": "analysis.statistics",
    "compress": "compression.codec",
    "convert": "interop.converter",
    "decompress": "compression.codec",
    "explore": "analysis.explorer",
    "export": "interop.exporter",
    "from_reference": "interop.author_names",
    "generate": "inference.sampling",
    "generate_batch": "inference.sampling",
    "trace_attention": "analysis.trace",
}

__all__ = [
    "SHARNN",
    "AttentionStatistics",
    "AttentionTrace",
    "Corpus",
    "Explorer",
    "InputError",
    "Lamb",
    "LiveExplorer",
    "Memory",
    "ModelConfig",
    "Muon",
    "OnnxModel",
    "Playground",
    "Recipe",
    "Result",
    "State",
    "Stepper",
    "Trainer",
    "attention_statistics",
    "bits_per_byte",
    "compress",
    "convert",
    "decompress",
    "explore",
    "export",
    "from_reference",
    "generate",
    "generate_batch",
    "load",
    "load_corpus",
    "resume",
    "save",
    "trace_attention",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'sharnn' has no attribute {name!r}")
    value = getattr(import_module(f"sharnn.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
