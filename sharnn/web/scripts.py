"""The engine's scripts, and a model's weights for it."""

from __future__ import annotations

import base64
import copy
import os
from functools import cache
from pathlib import Path

import torch

from sharnn.checkpoint import as_stored, to_bytes
from sharnn.errors import InputError
from sharnn.exact.stepper import exact_value_gate
from sharnn.io.files import write_atomically
from sharnn.model import SHARNN
from sharnn.web.assembler import assemble
from sharnn.web.page import asset
from sharnn.weights import usable

WORKER = "tensors kernels rewindable model reading random distribution worker".split()
EXACT = "exact integers stepper coder sha256 archive archiver".split()


@cache
def kernels() -> str:
    """Returns the assembled kernels in base64."""
    return base64.b64encode(assemble(asset("kernels.wat"))).decode()


def worker_source(exact: bool = False) -> str:
    """Returns the script of the worker.

    Args:
        exact: the worker of the compressor, which computes in exact arithmetic.
    """
    names = [*WORKER, *EXACT] if exact else WORKER
    parts = [asset(f"{name}.js") for name in names]
    reader = "Archiver" if exact else "Reader"
    return "\n".join(['"use strict";', *parts, f"startWorker(new {reader}());"])


def export_web(model: SHARNN, path: str | os.PathLike[str], storage: str = "int8") -> None:
    """Writes a script that holds a model, which the pages of a book load only when asked to.

    Browsers refuse to read other files from a page that is a file itself, but they run scripts.

    Args:
        model: the model.
        path: a file whose name ends in ``.js``.
        storage: format of the weights, see `sharnn.save`.

    Raises:
        InputError: the name has another ending, a weight is NaN or Inf or is too large for the
            storage, or the file can't be written.
    """
    path = Path(path)
    if path.suffix != ".js":
        raise InputError(f"the name of a script must end in .js, got {path.name!r}")
    content = web_file(model, storage)
    write_atomically(path, f'window.sharnnWeights = "{content}";\n'.encode())


def web_file(model: SHARNN, storage: str = "int8") -> str:
    """Returns the file of a model, with collapsed heads, in base64."""
    return base64.b64encode(b"".join(to_bytes(_collapsed(model), storage))).decode()


def web_model(model: SHARNN) -> SHARNN:
    """Returns the model with the weights that it has in a page: collapsed heads, 8 bits."""
    return as_stored(_collapsed(model), "int8")


def _collapsed(model: SHARNN) -> SHARNN:
    """Returns a copy with collapsed heads, whose gates on the values are those of exact steps."""
    model = copy.deepcopy(usable(model))
    heads = [block.head for block in model.blocks if block.head is not None]
    gates = [torch.from_numpy(exact_value_gate(head)) for head in heads]
    model.collapse()
    with torch.no_grad():
        for head, gate in zip(heads, gates, strict=True):
            head.value_gate.copy_(gate)
    return model
