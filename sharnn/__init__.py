"""SHA-RNN: a byte-level language model of LSTMs with a single attention head over a long memory.

Merity 2019, "Single Headed Attention RNN: Stop Thinking With Your Head", arXiv 1911.11423.

Example:
    >>> import sharnn, torch
    >>> model = sharnn.SHARNN(sharnn.ModelConfig(dim=16, boom_dim=64, memory=100))
    >>> logits, state = model(torch.tensor([list(b"The quick brown fox")]))
    >>> logits.shape
    torch.Size([1, 19, 256])
"""

from sharnn.analysis.explorer import Explorer, explore
from sharnn.analysis.live import LiveExplorer
from sharnn.analysis.results import Survey
from sharnn.analysis.statistics import survey
from sharnn.analysis.trace import Reading, read
from sharnn.checkpoint import load, save
from sharnn.compression.codec import compress, decompress
from sharnn.config import ModelConfig
from sharnn.data import Corpus, load_corpus
from sharnn.errors import InputError
from sharnn.evaluate import bits_per_byte
from sharnn.inference.sampling import generate, generate_batch
from sharnn.inference.stepper import Stepper
from sharnn.interop.author_names import from_reference
from sharnn.interop.converter import convert
from sharnn.interop.exporter import export
from sharnn.interop.onnx_model import OnnxModel
from sharnn.memory import Memory, State
from sharnn.model import SHARNN
from sharnn.optim.lamb import Lamb
from sharnn.optim.muon import Muon
from sharnn.recipe import Recipe
from sharnn.run import Result
from sharnn.training import resume, train

__version__ = "0.1.0"

__all__ = [
    "SHARNN",
    "Corpus",
    "Explorer",
    "InputError",
    "Lamb",
    "LiveExplorer",
    "Memory",
    "ModelConfig",
    "Muon",
    "OnnxModel",
    "Reading",
    "Recipe",
    "Result",
    "State",
    "Stepper",
    "Survey",
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
    "read",
    "resume",
    "save",
    "survey",
    "train",
]
