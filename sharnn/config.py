"""The shape of a model: every number that decides which tensors it has and what it computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sharnn.errors import InputError

MEMORY_WINDOWS = ("segment", "sliding")


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a SHA-RNN. The defaults are the paper's model with one head.

    Args:
        vocab_size: number of symbols; 256 for raw bytes.
        dim: width d of the embedding, the LSTMs and the head.
        boom_dim: width of the Boom layer; what is over a multiple of ``dim`` is cut off.
        layers: number of blocks.
        attention_layers: blocks that have the head, counted from 0.
        memory: M, the most rows a query may see: memory and current segment together.
        dropout: probability of every dropout in the model.
        memory_window: which rows a query sees once the memory is full.
            ``"segment"`` is the paper's rule: before a segment of length L the memory is trimmed
            to its newest M - L rows. Early positions of a segment then see fewer rows than late
            ones, and the outputs depend on where the stream is cut.
            ``"sliding"`` shows every query exactly the newest M rows, its own included, so that
            any cut of the stream gives the same outputs. Both rules agree while the stream is no
            longer than M.
        collapsed: the value gate is one stored vector (see `SHARNN.collapse`).

    Raises:
        InputError: a size is not positive, a block in ``attention_layers`` doesn't exist, ...

    Source: paper, model architecture and the table of settings.

    Example:
        >>> ModelConfig(dim=64, boom_dim=256, layers=2, attention_layers=(0,)).head_count
        1
        >>> ModelConfig.preset("tiny").dim
        128
    """

    vocab_size: int = 256
    dim: int = 1024
    boom_dim: int = 4096
    layers: int = 4
    attention_layers: tuple[int, ...] = (2,)
    memory: int = 5000
    dropout: float = 0.1
    memory_window: str = "segment"
    collapsed: bool = False

    def __post_init__(self) -> None:
        for name in ("vocab_size", "dim", "boom_dim", "layers", "memory"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} must be a positive whole number, got {value!r}")
        if self.boom_dim < self.dim:
            raise InputError(
                f"boom_dim must be at least dim ({self.dim}), got {self.boom_dim}: "
                "Boom sums chunks of width dim"
            )
        heads = self.attention_layers
        if not isinstance(heads, (tuple, list)) or not all(type(i) is int for i in heads):
            raise InputError(f"attention_layers must be block numbers like (2,), got {heads!r}")
        missing = [i for i in heads if not 0 <= i < self.layers]
        if missing:
            raise InputError(
                f"attention_layers names block {missing[0]}, "
                f"but {self.layers} layers are numbered 0 to {self.layers - 1}"
            )
        object.__setattr__(self, "attention_layers", tuple(sorted(set(heads))))
        if not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be at least 0 and below 1, got {self.dropout!r}")
        if self.memory_window not in MEMORY_WINDOWS:
            raise InputError(
                f"memory_window must be one of {', '.join(MEMORY_WINDOWS)}, "
                f"got {self.memory_window!r}"
            )

    @property
    def head_count(self) -> int:
        """Number of blocks that have the attention head."""
        return len(self.attention_layers)

    @classmethod
    def preset(cls, name: str) -> ModelConfig:
        """A named model shape.

        Args:
            name: ``"paper"`` (one head in the second-to-last block), ``"paper-no-head"``,
                ``"paper-every-head"``; for a laptop ``"tiny"`` (under 1 M parameters),
                ``"small"`` (about 3.5 M) or ``"medium"`` (about 13 M).

        Returns:
            The configuration.

        Raises:
            InputError: there is no preset of that name.

        Example:
            >>> ModelConfig.preset("paper-every-head").attention_layers
            (0, 1, 2, 3)
        """
        if name not in PRESETS:
            raise InputError(f"no preset named {name!r}; there are: {', '.join(PRESETS)}")
        return PRESETS[name]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The configuration that `to_dict` wrote.

        Args:
            values: field names and their values, as read from JSON.

        Returns:
            The configuration.

        Raises:
            InputError: a name is unknown or a value is out of range.

        Example:
            >>> cfg = ModelConfig.preset("tiny")
            >>> ModelConfig.from_dict(cfg.to_dict()) == cfg
            True
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(f"unknown model setting {unknown[0]!r}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The fields as values that JSON can hold.

        Returns:
            Field names and their values; `attention_layers` becomes a list.

        Example:
            >>> ModelConfig.preset("tiny").to_dict()["attention_layers"]
            [2]
        """
        values = dataclasses.asdict(self)
        values["attention_layers"] = list(self.attention_layers)
        return values


PRESETS = {
    "paper": ModelConfig(),
    "paper-no-head": ModelConfig(attention_layers=()),
    "paper-every-head": ModelConfig(attention_layers=(0, 1, 2, 3)),
    "tiny": ModelConfig(dim=128, boom_dim=512, memory=1024, dropout=0.0),
    "small": ModelConfig(dim=256, boom_dim=1024, memory=2048, dropout=0.0),
    "medium": ModelConfig(dim=512, boom_dim=2048, memory=2048, dropout=0.1),
}
