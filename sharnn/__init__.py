"""SHA-RNN: a byte-level language model of LSTMs with a single attention head over a long memory.

Merity 2019, "Single Headed Attention RNN: Stop Thinking With Your Head", arXiv 1911.11423.

Example:
    >>> import sharnn, torch
    >>> model = sharnn.SHARNN(sharnn.ModelConfig(dim=16, boom_dim=64, memory=100))
    >>> logits, state = model(torch.tensor([list(b"The quick brown fox")]))
    >>> logits.shape
    torch.Size([1, 19, 256])
"""

from sharnn.checkpoint import load, save
from sharnn.compression import compress, decompress
from sharnn.config import ModelConfig
from sharnn.convert import convert
from sharnn.data import Corpus, load_corpus
from sharnn.errors import InputError
from sharnn.evaluate import bits_per_byte
from sharnn.explorer import Explorer, explore
from sharnn.export import export
from sharnn.generate import generate, generate_batch
from sharnn.lamb import Lamb
from sharnn.live import LiveExplorer
from sharnn.memory import Memory, State
from sharnn.model import SHARNN
from sharnn.muon import Muon
from sharnn.onnx_model import OnnxModel
from sharnn.reading import Reading, read
from sharnn.recipe import Recipe
from sharnn.reference import from_reference
from sharnn.run import Result
from sharnn.stepper import Stepper
from sharnn.survey import survey
from sharnn.survey_types import Survey
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
