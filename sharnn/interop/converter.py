"""Converts a checkpoint with the author's parameter names to a model."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from sharnn.checkpoint import build
from sharnn.config import ModelConfig
from sharnn.errors import InputError
from sharnn.interop.author_names import from_reference
from sharnn.io.tensor_file import read_tensors
from sharnn.model import SHARNN
from sharnn.weights import usable

PARAMETER_PREFIX = "param/"  # of the parameters in an .npz file that also holds other arrays
# Older versions of torch.load could run code in spite of weights_only (CVE-2025-32434).
MIN_TORCH = "2.6"
SAVE_HINT = (
    "load the checkpoint with the author's code and save only its weights: "
    "torch.save(model.state_dict(), 'state.pt')"
)


def convert(
    path: str | os.PathLike[str], *, memory: int = 5000, dropout: float = 0.1, heads: int = 1
) -> SHARNN:
    """Reads a checkpoint with the author's parameter names. Code in the file is never run.

    The file is a state dict from ``torch.save``, a ``.safetensors`` or an ``.npz``. The author's
    own checkpoints are pickled objects, which run code when they are read, so they are refused.
    The symbols' numbers don't change. The author's dictionary numbers symbols in the order of
    their first appearance, so symbol 65 of his models is not the byte 65.

    Args:
        path: the file.
        memory, dropout: settings that the tensors don't determine (see `ModelConfig`).
        heads: number of heads in each attention layer, ``num_heads`` in the author's code. His
            variant with 4 heads has tensors of the same names and shapes, so it can't be
            recognised. Only models with 1 can be converted.

    Returns:
        The model in evaluation mode; its other settings follow from the shapes of the tensors.

    Raises:
        InputError: the file can't be read, or its parameters are not those of such a model; there
            are several heads in a layer; a parameter is NaN or Inf; or the file was written by
            ``torch.save``, and the installed torch is older than 2.6, which might run code in it.

    Source: the names are those of github.com/Smerity/sha-rnn.

    Example:
        >>> convert("nowhere.pt")
        Traceback (most recent call last):
        ...
        sharnn.errors.InputError: nowhere.pt: it does not exist
    """
    path = Path(path)
    if heads != 1:
        raise InputError(
            f"a model with {heads} heads in an attention layer can't be converted: sharnn's has 1"
        )
    try:
        tensors = from_reference(_read_file(path))
        config = infer_config(tensors, memory=memory, dropout=dropout)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return usable(build(tensors, {"config": config.to_dict()}, str(path)).eval())


def infer_config(
    tensors: Mapping[str, Tensor], *, memory: int = 5000, dropout: float = 0.1
) -> ModelConfig:
    """Returns the configuration of the model that has these tensors.

    Args:
        tensors: tensors by sharnn's parameter names, from `from_reference` or
            `SHARNN.state_dict`.
        memory, dropout: settings that the tensors don't determine; others of that kind, such as
            the memory window, have their defaults. The start of ``lstm_skip`` is taken to be the
            mean of the first block's vector.

    Raises:
        InputError: a tensor that determines the shape is missing, or a setting is out of range.

    Example:
        >>> config = ModelConfig(dim=8, boom_dim=20, layers=3, attention_layers=(0, 2))
        >>> infer_config(SHARNN(config).state_dict()) == config
        True
    """
    names = ("embedding.weight", "blocks.0.boom.expand.weight")
    for name in names:
        if name not in tensors or tensors[name].dim() != 2:
            raise InputError(f"not a SHA-RNN: {name} is missing or is not a matrix")
    embedding, boom = (tensors[name] for name in names)
    # Longer numbers are not block numbers: `build` reports such a tensor as unexpected.
    matches = [re.match(r"blocks\.(\d{1,9})\.", name) for name in tensors]
    blocks = {int(match[1]) for match in matches if match is not None}
    heads = [i for i in sorted(blocks) if f"blocks.{i}.head.query.weight" in tensors]
    skip = tensors.get("blocks.0.lstm_skip")
    return ModelConfig(
        vocab_size=embedding.shape[0],
        dim=embedding.shape[1],
        boom_dim=boom.shape[0],
        layers=max(blocks) + 1,
        attention_layers=tuple(heads),
        memory=memory,
        dropout=dropout,
        collapsed=any(name.endswith(".head.value_gate") for name in tensors),
        lstm_skip=skip.mean().item() if skip is not None else None,
    )


def _read_file(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file, by the file's names, ready for `build`."""
    try:
        if not path.exists():
            raise InputError("it does not exist")
        if not path.is_file():
            raise InputError("it is not a regular file")
        path.open("rb").close()  # the readers below would report a missing permission as damage
    except OSError as error:
        raise InputError(f"it can't be opened: {error.strerror or error}") from error
    pickled = path.suffix not in (".safetensors", ".npz")
    if pickled and TorchVersion(torch.__version__) < MIN_TORCH:
        raise InputError(
            f"torch {torch.__version__} might run code in it: update torch to {MIN_TORCH} or "
            "later, or save the tensors as .safetensors"
        )
    content: Any
    try:
        if path.suffix == ".safetensors":
            _, content = read_tensors(path)
        elif path.suffix == ".npz":
            content = _read_arrays(path)
        else:
            with warnings.catch_warnings(action="ignore"):  # the errors below say enough
                content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError as error:
        raise InputError("its tensors don't fit into memory") from error
    except pickle.UnpicklingError as error:
        raise InputError(f"it is damaged or holds more than tensors; {SAVE_HINT}") from error
    except Exception as error:  # on arbitrary bytes the readers can raise any exception
        raise InputError("it is damaged, or its name has the wrong ending") from error
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise InputError(f"it is not a state dict; {SAVE_HINT}")
    return _to_float32(content)


def _to_float32(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns float32 copies that are contiguous and share no storage."""
    floats = {}
    for name, tensor in tensors.items():
        dense = tensor.layout == torch.strided and not tensor.is_nested
        if not dense or tensor.device.type != "cpu" or not tensor.is_floating_point():
            raise InputError(
                f"{name!r} must be a dense tensor of floats, got {tensor.dtype} as "
                f"{tensor.layout} on {tensor.device}: save its values as float32"
            )
        try:
            floats[name] = tensor.detach().to(
                torch.float32, copy=True, memory_format=torch.contiguous_format
            )
        except RuntimeError as error:  # raised by torch if it can't allocate the copy
            raise InputError(
                f"not enough memory for {name!r} of shape {tuple(tensor.shape)}"
            ) from error
    return floats


def _read_arrays(path: Path) -> dict[str, Tensor]:
    """Returns the arrays of an .npz file; only those under ``param/`` if there are any."""
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        prefixed = any(name.startswith(PARAMETER_PREFIX) for name in arrays)
        prefix = PARAMETER_PREFIX if prefixed else ""
        return {
            name.removeprefix(prefix): torch.from_numpy(arrays[name])
            for name in arrays
            if name.startswith(prefix)
        }
