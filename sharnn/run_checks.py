"""Checks of a run's files before the run is resumed: settings, metrics and training state."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sharnn.checkpoint import read_header
from sharnn.config import ModelConfig
from sharnn.errors import InputError
from sharnn.io.files import read_file

Shape = tuple[int, ...]
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Rule:
    """A condition on a value from a file, and its description in messages."""

    what: str
    holds: Callable[[Any], bool]


Schema = Rule | Mapping[str, "Schema"]


def _integer(low: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value < 2**63


def _is_number(value: Any) -> bool:
    """Returns True for finite numbers; `bool` is no number here, although Python's is."""
    if type(value) is int:
        return abs(value) < 2**63
    return type(value) is float and math.isfinite(value)


COUNT = Rule("an integer of at least 0", _integer(0))
POSITIVE = Rule("an integer of at least 1", _integer(1))
AMOUNT = Rule("a number of at least 0", lambda value: _is_number(value) and value >= 0)
TEXT = Rule("text", lambda value: isinstance(value, str))
MAPPING = Rule("a JSON object", lambda value: isinstance(value, dict))

# The header of last.safetensors, apart from the model's configuration.
HEADER: Schema = {
    "fingerprint": TEXT,
    "recipe": MAPPING,
    "training": {
        "step": COUNT,
        "epoch": COUNT,
        "offset": COUNT,
        "seconds": AMOUNT,
        "cpu_seconds": AMOUNT,
        "bytes_read": COUNT,
        "skipped": COUNT,
        "has_state": Rule("true or false", lambda value: isinstance(value, bool)),
        "world_size": POSITIVE,
        "device": TEXT,
        "precision": TEXT,
        "threads": POSITIVE,
        "scaler": Rule(
            "an object of numbers",
            lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
        ),
    },
    "run": {
        "best": Rule("a loss or null", lambda value: value is None or AMOUNT.holds(value)),
        "validated": Rule("an integer of at least -1", _integer(-1)),
        "sums": {"bits": AMOUNT, "size": COUNT, "seconds": AMOUNT, "norm": AMOUNT},
    },
}


def upgrade_header(header: dict[str, Any]) -> None:
    """Adds to a checkpoint's header the values that earlier versions did not write.

    Example:
        >>> header = {
        ...     "recipe": {"batch_size": 2, "segment_length": 50},
        ...     "training": {"step": 3, "seconds": 1.5},
        ... }
        >>> upgrade_header(header)
        >>> header["training"]["cpu_seconds"], header["training"]["bytes_read"]
        (1.5, 300)
    """
    recipe, training = header.get("recipe"), header.get("training")
    if not isinstance(recipe, dict) or not isinstance(training, dict):
        return  # `check_header` reports it
    steps, streams, length = (
        training.get("step"),
        recipe.get("batch_size"),
        recipe.get("segment_length"),
    )
    if type(steps) is int and type(streams) is int and type(length) is int:
        training.setdefault("bytes_read", steps * streams * length)  # about: lengths vary
    if "seconds" in training:
        training.setdefault("cpu_seconds", training["seconds"])


def check_header(header: Mapping[str, Any]) -> None:
    """Checks the values in a checkpoint that a resumed run reads.

    Raises:
        InputError: a value is missing or invalid.

    Example:
        >>> check_header({"fingerprint": None})
        Traceback (most recent call last):
        ...
        sharnn.errors.InputError: fingerprint must be text, got None
    """
    _check(header, HEADER, "")


def _check(value: Any, schema: Schema, name: str) -> None:
    """Checks a value, and those in it."""
    if isinstance(schema, Rule):
        if not schema.holds(value):
            raise InputError(f"{name} must be {schema.what}, got {reprlib.repr(value)}")
        return
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must be a JSON object, got {reprlib.repr(value)}")
    for key, inner in schema.items():
        path = f"{name}.{key}" if name else key
        if key not in value:
            raise InputError(f"{path} is missing")
        _check(value[key], inner, path)


def check_tensors(
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
    config: ModelConfig,
    batch_size: int,
    optimizer_state: Sequence[Mapping[str, Shape]],
) -> None:
    """Checks names, shapes and dtypes of the tensors of a training state.

    Args:
        tensors: the tensors of `Trainer.snapshot`, after a round trip through a file.
        values: its values.
        config: the model's shape.
        batch_size: number of streams.
        optimizer_state: names and shapes of each parameter's tensors in the optimiser.

    Raises:
        InputError: a tensor is missing, unknown or invalid.
    """
    rest = dict(tensors)
    _check_random(rest, values["world_size"])
    if values["has_state"]:
        _check_state(rest, config, batch_size)
    _check_optimizer(rest, optimizer_state, values["step"] > values["skipped"])
    if rest:
        raise InputError(f"unknown tensor {reprlib.repr(min(rest))}")


def _check_random(rest: dict[str, Tensor], world_size: int) -> None:
    """Removes the random states of all processes, after checking them."""
    length = len(torch.get_rng_state())
    found = [name for name in rest if name.startswith("random.")]
    if world_size > len(found):
        raise InputError(f"{world_size} processes, but {len(found)} random states")
    for rank in range(world_size):
        _take(rest, random_name("cpu", rank), (length,), (torch.uint8,))
    if random_name("cuda", 0) in rest:
        for rank in range(world_size):
            _take(rest, random_name("cuda", rank), None, (torch.uint8,))


def _check_state(rest: dict[str, Tensor], config: ModelConfig, batch_size: int) -> None:
    """Removes the tensors of the streams' state, after checking them."""
    for i in range(config.layers):
        for part in ("hidden", "cell"):
            _take(rest, f"state.lstm.{i}.{part}", (batch_size, config.dim), FLOATS)
    for i in config.attention_layers:
        memory = _take(rest, f"state.memory.{i}", None, FLOATS)
        rows = memory.shape[1] if memory.dim() == 3 else 0
        if rows > config.memory or memory.shape != (batch_size, rows, config.dim):
            raise InputError(f"state.memory.{i} has shape {tuple(memory.shape)}")


def _check_optimizer(
    rest: dict[str, Tensor], state: Sequence[Mapping[str, Shape]], required: bool
) -> None:
    """Removes the optimiser's tensors, after checking them; before the first step it has none."""
    if not required and not any(name.startswith("optimizer.") for name in rest):
        return
    for index, shapes in enumerate(state):
        for name, shape in shapes.items():
            _take(rest, f"optimizer.{index}.{name}", shape, (torch.float32,))


def _take(
    rest: dict[str, Tensor], name: str, shape: Shape | None, dtypes: Sequence[torch.dtype]
) -> Tensor:
    """Removes a tensor and returns it; ``shape`` is None if any will do."""
    tensor = rest.pop(name, None)
    if tensor is None:
        raise InputError(f"{name} is missing")
    if shape is not None and tensor.shape != shape:
        raise InputError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
    if tensor.dtype not in dtypes:
        raise InputError(f"{name} must not be {str(tensor.dtype).removeprefix('torch.')}")
    return tensor


def random_name(kind: str, rank: int) -> str:
    """Returns the name of a process's random state in a checkpoint; rank 0's has no number.

    Example:
        >>> random_name("cpu", 0), random_name("cuda", 2)
        ('random.cpu', 'random.cuda.2')
    """
    return f"random.{kind}.{rank}" if rank else f"random.{kind}"


def read_run_config(path: Path) -> ModelConfig:
    """Returns the shape of the model in a checkpoint, without reading its tensors.

    Raises:
        InputError: the checkpoint can't be read or is damaged.
    """
    header = read_header(path)
    try:
        _check(header, {"config": MAPPING}, "")
        return ModelConfig.from_dict(header["config"])
    except InputError as error:
        raise InputError(f"{path} is damaged: {error}") from error


def read_recorded_data(path: Path) -> tuple[list[str], tuple[float, float, float] | None]:
    """Returns the data and the split that a run's ``config.json`` names.

    Raises:
        InputError: the file can't be read, or does not name them.
    """
    advice = f"{path} does not name the run's data: give --data"
    try:
        settings = json.loads(read_file(path).decode())
        data, split = settings["data"], settings["split"]
    except (InputError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(advice) from error
    if not isinstance(data, list) or not data or not all(isinstance(word, str) for word in data):
        raise InputError(advice)
    if split is None:
        return data, None
    if (
        not isinstance(split, list)
        or len(split) != 3
        or not all(_is_number(part) and part > 0 for part in split)
    ):
        raise InputError(f"{path} has an invalid split: give --data and --split")
    return data, (split[0], split[1], split[2])


def kept_metrics(content: bytes, step: int, validated: int) -> tuple[list[str], int]:
    r"""Returns the lines of ``metrics.jsonl`` that a resumed run keeps.

    Args:
        content: the file.
        step: the checkpoint's step; the run writes the lines of later steps again.
        validated: the step of the last validation that the checkpoint includes; the run repeats
            later ones.

    Returns:
        The lines, and the number of damaged ones, which are left out. The last line does not
        count: it is damaged if the run was killed while it was being written.

    Example:
        >>> kept_metrics(b'{"step": 1}\n[1]\n{"step": 2}\n{"st', step=5, validated=5)
        (['{"step": 1}', '{"step": 2}'], 1)
    """
    lines = content.split(b"\n")
    kept, damaged = [], 0
    for number, line in enumerate(lines, start=1):
        record = _parse_metrics(line)
        if record is None:
            damaged += bool(line.strip()) and number < len(lines)
        elif record["step"] <= (validated if "valid_bits_per_byte" in record else step):
            kept.append(line.decode())
    return kept, damaged


def _parse_metrics(line: bytes) -> dict[str, Any] | None:
    """Returns a line of metrics as a dictionary, or None if the line is damaged."""
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not COUNT.holds(record.get("step")):
        return None
    return record if all(map(_is_number, record.values())) else None
