"""Models and checkpoints on disk: tensors in safetensors, everything else as JSON in its header."""

from __future__ import annotations

import contextlib
import json
import os
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from sharnn.config import ModelConfig
from sharnn.errors import InputError
from sharnn.inference.packed import require_storage, to_int8
from sharnn.model import SHARNN

FORMAT = 1
BEST, LAST = "best.safetensors", "last.safetensors"
STORAGES = ("float32", "float16", "int8")
SCALE = ".scale"  # suffix of the scales of an int8 matrix
TRAINING = "training."  # prefix of tensors that only a resumed run needs
SHIPPED = Path(__file__).parent / "pretrained"


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader finds the old content or the new, never a part.

    Args:
        path: the file; its folder must exist.
        content: all of it.

    Raises:
        InputError: it can't be written there.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)  # it would only take room
        if isinstance(error, OSError):
            raise InputError(f"can't write {path}: {error.strerror or error}") from error
        raise


def require_writable(path: str | os.PathLike[str]) -> Path:
    """Looks at the place of an output, before the work that it waits for.

    Args:
        path: a file, which may be there or not.

    Returns:
        Its path.

    Raises:
        InputError: no file can be there.
    """
    path = Path(path)
    if not path.absolute().parent.is_dir():
        raise InputError(f"can't write {path}: its folder is not there")
    if path.exists() and not path.is_file():
        raise InputError(f"can't write {path}: it is no file")
    return path


def save(
    model: SHARNN,
    path: str | os.PathLike[str],
    *,
    weights: str = "float32",
    extra_tensors: Mapping[str, Tensor] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Writes a model to one file: its tensors, and its configuration as JSON in the header.

    Args:
        model: the model.
        path: a file whose name ends in ``.safetensors``.
        weights: how weights are stored: ``"float32"`` as they are; ``"float16"`` in half the bytes,
            rounded; ``"int8"`` in about a quarter: each row of a matrix as whole numbers times one
            scale, vectors as float32. Whatever it is, they are loaded as float32.
        extra_tensors: more tensors, stored under the prefix ``training.``.
        extra: more values for the header, as JSON can hold them.

    Raises:
        InputError: the name has another ending, there is no such storage, or the file can't be
            written.

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
        raise InputError(f"a model's file name ends in .safetensors, got {path.name!r}")
    require_storage(weights, STORAGES)
    tensors: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        tensors |= _stored(name, weight.detach().float().cpu(), weights)
    for name, tensor in (extra_tensors or {}).items():
        tensors[TRAINING + name] = tensor.detach().cpu()
    header = {"format": FORMAT, "config": model.config.to_dict(), **(extra or {})}
    # Memories are views into larger storage: contiguous copies hold just their rows.
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_atomically(path, to_bytes(tensors, {"sharnn": json.dumps(header)}))


def _stored(name: str, weight: Tensor, weights: str) -> dict[str, Tensor]:
    """The tensors that stand for one weight in a file."""
    if weights == "float16":
        return {name: weight.half()}
    if weights == "int8" and weight.dim() == 2:
        numbers, scales = to_int8(weight)  # (rows, columns), (rows, 1)
        return {name: numbers, name + SCALE: scales}
    return {name: weight}


def _restored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 weights that a file's tensors stand for; those of training are passed over."""
    weights = {name: t for name, t in tensors.items() if not name.startswith(TRAINING)}
    for name in [name for name, t in weights.items() if t.dtype == torch.int8]:
        numbers, scales = weights[name], weights.pop(name + SCALE, None)
        if numbers.dim() != 2 or scales is None or scales.shape != (numbers.shape[0], 1):
            raise InputError(f"{name} is int8, but has not one scale for each row")
        weights[name] = numbers * scales
    return {name: t.float() for name, t in weights.items()}


def load(path_or_name: str | os.PathLike[str], device: str | torch.device = "cpu") -> SHARNN:
    """Reads a model, ready to evaluate. No code in the file is run, whatever it holds.

    Args:
        path_or_name: a run folder (its best checkpoint, else its last), a ``.safetensors`` file,
            or the name of a model that ships with the package.
        device: where to put it.

    Returns:
        The model in evaluation mode.

    Raises:
        InputError: there is no such model, or the file is not one of ours or damaged.
    """
    tensors, header = read(find_model(path_or_name), training=False)
    return build(tensors, header, str(path_or_name)).to(device).eval()


def find_model(path_or_name: str | os.PathLike[str]) -> Path:
    """The file that a model's path or name stands for.

    Args:
        path_or_name: see `load`.

    Returns:
        The file's path; it exists.

    Raises:
        InputError: there is no such model.
    """
    path = Path(path_or_name)
    if path.is_dir():
        for name in (BEST, LAST):
            if (path / name).is_file():
                return path / name
        raise InputError(f"{path} is no run folder: it has no {BEST} or {LAST}")
    if path.is_file():
        return path
    shipped = sorted(file.stem for file in SHIPPED.glob("*.safetensors"))
    if str(path_or_name) in shipped:
        return SHIPPED / f"{path_or_name}.safetensors"
    names = (
        f"shipped models: {', '.join(shipped)}" if shipped else "no model ships with the package"
    )
    raise InputError(
        f"no model at {path_or_name}: give a run folder or .safetensors file ({names})"
    )


def read(path: Path, training: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads one of our files.

    Args:
        path: the file.
        training: also read the tensors a resumed run needs.

    Returns:
        Tensors by name, and the header's values.

    Raises:
        InputError: it can't be read, or is not one of ours.
    """
    with _opened(path) as file:
        header = _header(file, path)
        names = [n for n in file.keys() if training or not n.startswith(TRAINING)]  # noqa: SIM118
        # Clones lie as new tensors do. Where the file puts them, kernels may round otherwise,
        # and a resumed run would drift from an uninterrupted one.
        return {name: file.get_tensor(name).clone() for name in names}, header


def read_header(path: Path) -> dict[str, Any]:
    """What one of our files says of itself; its tensors are not read.

    Args:
        path: the file.

    Returns:
        The header's values.

    Raises:
        InputError: it can't be read, or is not one of ours.
    """
    with _opened(path) as file:
        return _header(file, path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file for as long as it is read."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} can't be read as safetensors: {error}") from error


def _header(file: Any, path: Path) -> dict[str, Any]:
    """The header of an open file, if it is one of ours."""
    try:
        header = json.loads((file.metadata() or {})["sharnn"])
    except (KeyError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not a sharnn model: its header has no configuration"
        ) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InputError(f"{path} is not a sharnn model of format {FORMAT}: update sharnn?")
    return header


def build(tensors: Mapping[str, Tensor], header: Mapping[str, Any], source: str) -> SHARNN:
    """The model that a file's tensors and header describe.

    Args:
        tensors: by name; those of training are passed over. Each is contiguous, in storage of its
            own: float32 ones become the model's weights without a copy.
        header: holds ``config``.
        source: the file's name, for error messages.

    Returns:
        The model on the CPU.

    Raises:
        InputError: tensors and configuration don't belong together.
    """
    try:
        weights = _restored(tensors)
        config = ModelConfig.from_dict(header["config"])
        if config.layers > len(weights):
            raise InputError(f"{config.layers} layers but {len(weights)} tensors")
        # No storage and no random numbers are spent on weights that are about to be replaced.
        with torch.device("meta"):
            model = SHARNN(config)
        # Whoever reads a file clones its tensors, once; another copy here would only cost memory.
        model.load_state_dict(weights, strict=True, assign=True)
    except (InputError, KeyError, TypeError, RuntimeError) as error:
        told = str(error).removeprefix("Error(s) in loading state_dict for SHARNN:")
        reason = textwrap.shorten(told, 200, placeholder=" ...")  # on one line, too
        raise InputError(f"{source} is damaged: {reason or type(error).__name__}") from error
    return model
