"""The shape of a model: the settings that determine its tensors and its outputs."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sharnn.errors import InputError, require_choice
from sharnn.settings import check_types, document_fields, from_mapping, setting

MEMORY_WINDOWS = ("segment", "sliding")
# Sizes beyond these fit in no machine, and the numbers of bytes would overflow.
LARGEST = {"vocab_size": 2**24, "dim": 2**24, "boom_dim": 2**24, "layers": 1000, "memory": 2**31}


@document_fields
@dataclass(frozen=True)
class ModelConfig:
    """The shape of a SHA-RNN. The defaults are the paper's model with one head.

    {fields}

    Memory windows: under ``"segment"``, the paper's rule, memory is trimmed to its newest M - L
    rows before a segment of length L. The first positions of a segment then see fewer rows than
    the last ones, and the outputs depend on where the stream is cut. Under ``"sliding"`` every
    query sees exactly the newest M rows, its own included, so the outputs are the same for any
    cut. Both rules agree as long as the stream is no longer than M.

    Shifted keys: query i scores row j by q_i k_(j-1), and the value is still that of row j. The
    oldest row that a query can attend to has no key, and its score is 0. That holds for both
    memory windows, so the rows that a query can attend to are the same as without the option.

    Raises:
        InputError: a size is not positive, a block in ``attention_layers`` doesn't exist, ...

    Source: paper, model architecture and the table of settings. Shifted keys are not in the paper;
    they are related to the smeared keys of Olsson and others, 2022, "In-context Learning and
    Induction Heads", which mix each key with the one before it.

    Example:
        >>> ModelConfig(dim=64, boom_dim=256, layers=2, attention_layers=(0,)).head_count
        1
        >>> ModelConfig.preset("tiny").dim
        128
    """

    vocab_size: int = setting(256, "number of symbols; 256 for raw bytes")
    dim: int = setting(1024, "width d of the embedding, the LSTMs and the head")
    boom_dim: int = setting(
        4096, "width of the Boom layer; units beyond the last whole multiple of dim are unused"
    )
    layers: int = setting(4, "number of blocks")
    attention_layers: tuple[int, ...] = setting(
        (2,), "blocks with an attention head, numbered from 0"
    )
    memory: int = setting(
        5000,
        "M, the maximum number of rows (positions) a query can attend to: memory and current "
        "segment together",
    )
    dropout: float = setting(0.1, "dropout probability, the same everywhere in the model")
    memory_window: str = setting(
        "segment",
        "segment (as in the paper: the first positions of a segment see fewer rows) or sliding "
        "(every position sees the newest M rows)",
    )
    collapsed: bool = setting(
        False, "the value gate is stored as one vector; see `SHARNN.collapse`"
    )
    shifted_keys: bool = setting(
        False,
        "the key of each row is the row before it, so that a query that resembles an earlier row "
        "attends to what followed that row; not in the paper",
    )
    query_gain: float | None = setting(
        None,
        "before training, W_q is this number times the identity and LN_q's gain is this number, so "
        "that queries resemble their own rows; none for the paper's start",
    )
    lstm_skip: float | None = setting(
        None,
        "each block adds its LSTM's input, times a vector that starts at this number, to the "
        "LSTM's output; none for the paper's block, which has no such vector",
    )

    def __post_init__(self) -> None:
        for name, largest in LARGEST.items():
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"{name} must be a positive integer, got {reprlib.repr(value)}")
            if value > largest:
                raise InputError(f"{name} must be at most {largest:,}, got {reprlib.repr(value)}")
        check_types(self)
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
                f"but the {self.layers} blocks are numbered 0 to {self.layers - 1}"
            )
        object.__setattr__(self, "attention_layers", tuple(sorted(set(heads))))
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be at least 0 and below 1, got {self.dropout!r}")
        require_choice("memory_window", self.memory_window, MEMORY_WINDOWS)
        gain = self.query_gain
        if gain is not None and not 0 < gain < math.inf:
            raise InputError(f"query_gain must be a positive number or none, got {gain!r}")
        if self.lstm_skip is not None and math.isnan(self.lstm_skip):
            raise InputError(f"lstm_skip must be a number or none, got {self.lstm_skip!r}")

    @property
    def head_count(self) -> int:
        """Number of blocks that have the attention head."""
        return len(self.attention_layers)

    @classmethod
    def preset(cls, name: str) -> ModelConfig:
        """Returns the shape of a preset.

        Args:
            name: ``"paper"`` (one head, in the second-to-last block), ``"paper-no-head"`` or
                ``"paper-every-head"``; for a laptop ``"tiny"`` (under 1 M parameters),
                ``"small"`` (about 3.5 M) or ``"medium"`` (about 13 M).

        Raises:
            InputError: there is no preset of that name.

        Example:
            >>> ModelConfig.preset("paper-every-head").attention_layers
            (0, 1, 2, 3)
        """
        require_choice("preset", name, PRESETS)
        return PRESETS[name]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Returns the configuration that `to_dict` wrote.

        Raises:
            InputError: a name is unknown or a value is out of range.

        Example:
            >>> cfg = ModelConfig.preset("tiny")
            >>> ModelConfig.from_dict(cfg.to_dict()) == cfg
            True
        """
        return from_mapping(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as values that JSON can represent; tuples become lists.

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
