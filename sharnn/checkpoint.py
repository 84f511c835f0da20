"""Models and checkpoints on disk: tensors in safetensors, everything else as JSON in the header."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialise
from torch import Tensor

from sharnn.config import ModelConfig
from sharnn.errors import InputError, require_choice
from sharnn.io.checksum import add_checksum, verify_checksum
from sharnn.io.console import notify
from sharnn.io.files import open_atomically
from sharnn.io.tensor_file import metadata_of, read_metadata, read_tensors
from sharnn.model import SHARNN
from sharnn.weights import named_weights, unwrap

FORMAT = 1
BEST, LAST = "best.safetensors", "last.safetensors"
STORAGES = ("float32", "float16", "int8")
SCALE = ".scale"  # suffix of the name of an int8 matrix's scales
TRAINING = "training."  # prefix of the names of tensors that only a resumed run needs
SHIPPED = Path(__file__).parent / "pretrained"


def save(
    model: SHARNN,
    path: str | os.PathLike[str],
    *,
    storage: str = "float32",
    extra_tensors: Mapping[str, Tensor] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Writes a model to one file: its tensors, and its configuration as JSON in the header.

    Args:
        model: the model, or a wrapper of it such as that of `torch.compile`.
        path: a file whose name ends in ``.safetensors``.
        storage: format of the weights: ``"float32"``; ``"float16"``, half the size; or
            ``"int8"``, about a quarter of the size: each row of a matrix as integers times one
            scale, vectors as float32. They are loaded as float32 in any case.
        extra_tensors: additional tensors, stored under the prefix ``training.``.
        extra: additional values for the header, which JSON can represent.

    Raises:
        InputError: the name does not end in ``.safetensors``, the storage is unknown, a weight is
            too large for float16, or the file can't be written.

    Example:
        >>> import tempfile
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(model, f"{folder}/model.safetensors")
        ...     load(f"{folder}/model.safetensors").config == model.config
        True
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"a model's file name must end in .safetensors, got {path.name!r}")
    parts = to_bytes(model, storage, extra_tensors=extra_tensors, extra=extra)
    with open_atomically(path) as file:
        file.writelines(parts)


def to_bytes(
    model: SHARNN,
    storage: str = "float32",
    *,
    extra_tensors: Mapping[str, Tensor] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Sequence[bytes | memoryview]:
    """Returns the content of the file that `save` writes, in parts.

    Args:
        model, storage, extra_tensors, extra: see `save`.

    Raises:
        InputError: the storage is unknown, or a weight is too large for float16.
    """
    require_choice("storage", storage, STORAGES)
    tensors: dict[str, Tensor] = {}
    for name, weight in named_weights(model).items():
        tensors |= _to_storage(name, weight.float().cpu(), storage)
    for name, tensor in (extra_tensors or {}).items():
        tensors[TRAINING + name] = tensor.detach().cpu()
    header = {"format": FORMAT, "config": unwrap(model).config.to_dict(), **(extra or {})}
    # Memories are views of larger tensors: contiguous copies contain only their rows.
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return add_checksum(serialise(tensors, {"sharnn": json.dumps(header)}))


def as_stored(model: SHARNN, storage: str) -> SHARNN:
    """Returns the model that `load` returns after `save`, with the weights of this storage.

    Args:
        model, storage: see `save`.

    Raises:
        InputError: the storage is unknown, or a weight is too large for float16.

    Example:
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64))
        >>> bool((as_stored(model, "float16").embedding.weight == model.embedding.weight).all())
        False
    """
    require_choice("storage", storage, STORAGES)
    tensors: dict[str, Tensor] = {}
    for name, weight in named_weights(model).items():
        tensors |= _to_storage(name, weight.detach().float().cpu().clone(), storage)
    header = {"config": unwrap(model).config.to_dict()}
    return build(tensors, header, "the model").to(unwrap(model).embedding.weight.device).eval()


def to_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantises each row of a matrix to integers from -127 to 127 times one scale.

    Args:
        x: (rows, columns).

    Returns:
        (rows, columns) int8 and (rows, 1) scales, whose product is about ``x``.

    Example:
        >>> to_int8(torch.tensor([[0.5, -1.27]]))
        (tensor([[  50, -127]], dtype=torch.int8), tensor([[0.0100]]))
    """
    scales = x.abs().amax(dim=1, keepdim=True).div_(127).clamp_(min=1e-30)
    return (x / scales).round_().to(torch.int8), scales


def _to_storage(name: str, weight: Tensor, storage: str) -> dict[str, Tensor]:
    """Returns the tensors that represent one float32 weight in a file."""
    if storage == "float16":
        half = weight.half()
        if not torch.equal(half.isfinite(), weight.isfinite()):
            raise InputError(f"{name} has weights that are too large for float16: use float32")
        return {name: half}
    if storage == "int8" and weight.dim() == 2:
        numbers, scales = to_int8(weight)  # (rows, columns), (rows, 1)
        return {name: numbers, name + SCALE: scales}
    return {name: weight}


def _from_storage(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the float32 weights that a file's tensors represent, without those of training."""
    weights = {name: t for name, t in tensors.items() if not name.startswith(TRAINING)}
    for name in [name for name, t in weights.items() if t.dtype == torch.int8]:
        numbers, scales = weights[name], weights.pop(name + SCALE, None)
        if numbers.dim() != 2 or scales is None or scales.shape != (numbers.shape[0], 1):
            raise InputError(f"{name} is int8, but does not have one scale per row")
        weights[name] = numbers * scales
    return {name: t.float() for name, t in weights.items()}


def load(path_or_name: str | os.PathLike[str], device: str | torch.device = "cpu") -> SHARNN:
    """Loads a model in evaluation mode. Loading never runs code, whatever the file contains.

    Args:
        path_or_name: the name of a model that ships with the package, a run folder (its best
            checkpoint, else its last), or a ``.safetensors`` file. A folder or file with the name
            of a shipped model is given as ``"./wiki-small"`` or as a `pathlib.Path`.
        device: device of the model.

    Raises:
        InputError: there is no such model, or the file is damaged or was not written by sharnn.

    Example:
        >>> load("wiki-small").config.dim
        256
    """
    path = find_model(path_or_name)
    if path.parent == SHIPPED and path != Path(path_or_name) and os.path.exists(path_or_name):
        name = path_or_name
        notify(f"{name} is the shipped model, not {name} in this folder: write ./{name} for that")
    tensors, header = read(path, training=False)
    return build(tensors, header, str(path_or_name)).to(device).eval()


def find_model(path_or_name: str | os.PathLike[str]) -> Path:
    """Returns the path of the file that `load` reads for a path or name.

    Raises:
        InputError: there is no such model, or its folder can't be read.
    """
    path = Path(path_or_name)
    try:
        shipped_model = SHIPPED / f"{path.name}.safetensors"
        if path_or_name == path.name and shipped_model.is_file():
            return shipped_model
        if path.is_dir():
            for name in (BEST, LAST):
                if (path / name).is_file():
                    return path / name
            raise InputError(f"{path} is not a run folder: it has no {BEST} or {LAST}")
        if path.is_file():
            return path
    except OSError as error:  # a folder without permission, or a name that is too long
        raise InputError(f"can't read {path}: {error.strerror or error}") from error
    shipped = sorted(file.stem for file in SHIPPED.glob("*.safetensors"))
    names = (
        f"shipped models: {', '.join(shipped)}" if shipped else "no model ships with the package"
    )
    raise InputError(
        f"no model at {path_or_name}: give a run folder or .safetensors file ({names})"
    )


def read(path: Path, training: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a file that `save` wrote, and verifies its checksum if it has one.

    Args:
        path: the file.
        training: also read the tensors that only a resumed run needs.

    Returns:
        Tensors by name, and the header's values.

    Raises:
        InputError: the file can't be read, is damaged, or was not written by `save`.
    """
    content, tensors = read_tensors(path)
    metadata = metadata_of(content)
    verify_checksum(path, content, metadata)
    del content
    header = _header(metadata, path)
    names = [name for name in tensors if training or not name.startswith(TRAINING)]
    # Clone: a tensor's alignment in memory can change rounding, so that a resumed run would drift
    # from an uninterrupted one.
    return {name: tensors.pop(name).clone() for name in names}, header


def read_header(path: Path) -> dict[str, Any]:
    """Returns the header's values of a file that `save` wrote, without reading its tensors.

    Raises:
        InputError: the file can't be read, or was not written by `save`.
    """
    return _header(read_metadata(path), path)


def _header(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Returns the header's values from a file's metadata."""
    try:
        header = json.loads(metadata["sharnn"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not a sharnn model: its header has no configuration"
        ) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else None
        raise InputError(
            f"{path} has model format {found}, but this version of sharnn reads format {FORMAT}: "
            "use the version that wrote it"
        )
    return header


def build(tensors: Mapping[str, Tensor], header: Mapping[str, Any], source: str) -> SHARNN:
    """Returns the model, on the CPU, that a file's tensors and header describe.

    Args:
        tensors: tensors by name; those of training are ignored. Each must be contiguous and own
            its storage: float32 ones become the model's weights without a copy.
        header: a mapping with ``config``.
        source: the file's name, for error messages.

    Raises:
        InputError: the tensors don't match the configuration.
    """
    try:
        weights = _from_storage(tensors)
        config = ModelConfig.from_dict(header["config"])
        if config.layers > len(weights):
            raise InputError(f"{config.layers} layers but {len(weights)} tensors")
        # On the meta device, weights that are about to be replaced are not initialised.
        with torch.device("meta"):
            model = SHARNN(config)
        # The tensors were cloned when they were read: a second copy would only take memory.
        model.load_state_dict(weights, strict=True, assign=True)
    except (InputError, KeyError, TypeError, RuntimeError) as error:
        message = str(error).removeprefix("Error(s) in loading state_dict for SHARNN:")
        reason = textwrap.shorten(message, 200, placeholder=" ...")  # also joins lines
        raise InputError(f"{source} is damaged: {reason or type(error).__name__}") from error
    return model
