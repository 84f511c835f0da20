"""Writes a model as ONNX, or in smaller storage."""

from __future__ import annotations

import os
from pathlib import Path

from sharnn.checkpoint import save
from sharnn.errors import InputError
from sharnn.interop.onnx_graph import model_graph
from sharnn.io.checksum import fill_onnx_checksum
from sharnn.io.files import write_atomically
from sharnn.model import SHARNN
from sharnn.weights import usable

MAX_ONNX_BYTES = 2**31 - 1  # protobuf's limit for one file


def export(model: SHARNN, path: str | os.PathLike[str], *, storage: str = "float32") -> None:
    """Writes a model as an ONNX or a ``.safetensors`` file, depending on the name's ending.

    The ONNX file contains one graph of standard operators. The graph reads segments of any
    length, including single bytes, with the state as additional inputs and outputs (see
    `sharnn.interop.onnx_graph.model_graph`). `OnnxModel` runs it. Its heads are collapsed; the
    model itself is not changed.

    Args:
        model: the model, in training or evaluation mode.
        path: a file whose name ends in ``.onnx``, or in ``.safetensors`` (see `save`).
        storage: format of the weights: ``"float32"``; ``"int8"``, a quarter of the size for a
            small loss in bits per byte; or ``"float16"``, in ``.safetensors`` only.

    Raises:
        InputError: the name has another ending, the storage is unknown, the model's weights
            contain NaN or Inf or are too large for the storage, the file can't be written
            or would exceed ONNX's limit of 2 GB, or the package ``onnx`` is not installed.

    Example:
        >>> import tempfile
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export(model, f"{folder}/model.onnx", storage="int8")
        ...     sorted(os.listdir(folder))
        ['model.onnx']
    """
    path, model = Path(path), usable(model)
    if path.suffix == ".safetensors":
        save(model, path, storage=storage)
        return
    if path.suffix != ".onnx":
        raise InputError(f"the name must end in .onnx or .safetensors, got {path.name!r}")
    if model.parameter_count() * (1 if storage == "int8" else 4) > MAX_ONNX_BYTES:
        raise InputError("the model is too large for an ONNX file (2 GB): use int8 storage")
    write_atomically(path, fill_onnx_checksum(model_graph(model, storage).SerializeToString()))
