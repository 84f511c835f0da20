"""A model in a file for other programs, or in smaller storage."""

from __future__ import annotations

import os
from pathlib import Path

from sharnn.checkpoint import save, write_atomically
from sharnn.errors import InputError
from sharnn.interop.onnx_graph import model_graph
from sharnn.model import SHARNN

PROTOBUF_BYTES = 2**31 - 1  # what one ONNX file can hold


def export(model: SHARNN, path: str | os.PathLike[str], *, weights: str = "float32") -> None:
    """Writes a model as ONNX, or as one of our own files; the name's ending decides.

    The ONNX file holds one graph of standard operators that reads a segment of any length, one
    byte included, and takes and gives back the state (see `sharnn.interop.onnx_graph.model_graph`).
    `OnnxModel` runs it. Heads are collapsed in it; the model itself is not changed.

    Args:
        model: the model, in training or not.
        path: a file whose name ends in ``.onnx``, or in ``.safetensors`` (see `save`).
        weights: how weights are stored: ``"float32"``, ``"int8"``, a quarter of the bytes for a
            small loss in bits per byte, or, in ``.safetensors`` alone, ``"float16"``.

    Raises:
        InputError: the name has another ending, there is no such storage, the file can't be written
            or would be larger than ONNX allows, or the package ``onnx`` is not installed.

    Example:
        >>> import tempfile
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export(model, f"{folder}/model.onnx", weights="int8")
        ...     sorted(os.listdir(folder))
        ['model.onnx']
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        save(model, path, weights=weights)
        return
    if path.suffix != ".onnx":
        raise InputError(f"the name must end in .onnx or .safetensors, got {path.name!r}")
    if model.parameter_count() * (1 if weights == "int8" else 4) > PROTOBUF_BYTES:
        raise InputError("the model is too large for ONNX, whose files hold 2 GB: try int8 weights")
    write_atomically(path, model_graph(model, weights).SerializeToString())
