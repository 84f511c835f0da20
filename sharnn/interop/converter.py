"""From a checkpoint under the author's parameter names to a model."""

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
from safetensors.torch import load_file
from torch import Tensor
from torch.torch_version import TorchVersion

from sharnn.checkpoint import build
from sharnn.config import ModelConfig
from sharnn.errors import InputError
from sharnn.interop.author_names import from_reference
from sharnn.model import SHARNN

PARAMETERS = "param/"  # prefix of parameters in an .npz that holds other arrays, too
SAFE_TORCH = "2.6"  # before it, torch.load could run code in spite of weights_only (CVE-2025-32434)
HOW = (
    "with the author's code, load the checkpoint and save its weights alone: "
    "torch.save(model.state_dict(), 'state.pt')"
)


def convert(path: str | os.PathLike[str], *, memory: int = 5000, dropout: float = 0.1) -> SHARNN:
    """Reads a checkpoint that has the author's parameter names. No code in the file is run.

    The file is a state dict from ``torch.save``, a ``.safetensors``, or an ``.npz``. The author's
    own checkpoints are pickled objects, which run code when they are read, and are refused.
    Symbols keep their numbers: where the author's dictionary numbered them by their first
    appearance, symbol 65 is not the byte 65.

    Args:
        path: the file.
        memory, dropout: settings of the model that no tensor tells (see `ModelConfig`).

    Returns:
        The model in evaluation mode; its other settings are those of its tensors' shapes.

    Raises:
        InputError: the file can't be read, or holds other parameters than such a model's; or it
            is from ``torch.save``, and torch is older than 2.6, which might run code in it.

    Source: the names are those of github.com/Smerity/sha-rnn.

    Example:
        >>> convert("nowhere.pt")
        Traceback (most recent call last):
        ...
        sharnn.errors.InputError: nowhere.pt: there is no such file
    """
    path = Path(path)
    try:
        tensors = from_reference(_read(path))
        config = infer_config(tensors, memory=memory, dropout=dropout)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return build(tensors, {"config": config.to_dict()}, str(path)).eval()


def infer_config(
    tensors: Mapping[str, Tensor], *, memory: int = 5000, dropout: float = 0.1
) -> ModelConfig:
    """The shape of the model that has these tensors.

    Args:
        tensors: by our names, as `from_reference` and `SHARNN.state_dict` give them.
        memory, dropout: settings that no tensor tells.

    Returns:
        The configuration.

    Raises:
        InputError: a tensor that tells the shape is missing, or a setting is out of range.

    Example:
        >>> config = ModelConfig(dim=8, boom_dim=20, layers=3, attention_layers=(0, 2))
        >>> infer_config(SHARNN(config).state_dict()) == config
        True
    """
    telling = ("embedding.weight", "blocks.0.boom.expand.weight")
    for name in telling:
        if name not in tensors or tensors[name].dim() != 2:
            raise InputError(f"no model of ours: {name} is missing, or is no matrix")
    embedding, boom = (tensors[name] for name in telling)
    # A longer number is no block's: its tensor is left over, and `build` names it.
    found = [re.match(r"blocks\.(\d{1,9})\.", name) for name in tensors]
    blocks = {int(match[1]) for match in found if match is not None}
    heads = [i for i in sorted(blocks) if f"blocks.{i}.head.query.weight" in tensors]
    return ModelConfig(
        vocab_size=embedding.shape[0],
        dim=embedding.shape[1],
        boom_dim=boom.shape[0],
        layers=max(blocks) + 1,
        attention_layers=tuple(heads),
        memory=memory,
        dropout=dropout,
        collapsed=any(name.endswith(".head.value_gate") for name in tensors),
    )


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by the names they have there, as `build` takes them."""
    try:
        if not path.is_file():
            raise InputError("there is no such file")
        path.open("rb").close()  # a refusal told by the readers below would pass for damage
    except OSError as error:
        raise InputError(f"it can't be opened: {error.strerror or error}") from error
    pickled = path.suffix not in (".safetensors", ".npz")
    if pickled and TorchVersion(torch.__version__) < SAFE_TORCH:
        raise InputError(
            f"torch {torch.__version__} might run code in it: update torch to {SAFE_TORCH} or "
            "later, or save the tensors as .safetensors"
        )
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        elif path.suffix == ".npz":
            content = _read_arrays(path)
        else:
            with warnings.catch_warnings(action="ignore"):  # what is wrong is said below, once
                content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError as error:
        raise InputError("its tensors don't fit into memory") from error
    except pickle.UnpicklingError as error:
        raise InputError(f"it holds more than tensors, or is damaged; {HOW}") from error
    except Exception as error:  # the readers meet any bytes, and raise what these lead to
        raise InputError("it is damaged, or of another kind than its name says") from error
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise InputError(f"it holds no state dict; {HOW}")
    return _floats(content)


def _floats(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Float32 copies, contiguous and each in storage of its own."""
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
        except RuntimeError as error:  # so says torch that memory is short
            raise InputError(f"no memory for {name!r} of shape {tuple(tensor.shape)}") from error
    return floats


def _read_arrays(path: Path) -> dict[str, Tensor]:
    """An .npz file's arrays, or where some are under ``param/`` those."""
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        prefix = PARAMETERS if any(name.startswith(PARAMETERS) for name in arrays) else ""
        return {
            name.removeprefix(prefix): torch.from_numpy(arrays[name])
            for name in arrays
            if name.startswith(prefix)
        }
