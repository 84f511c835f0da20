"""The settings of a training run, apart from the model's shape and the corpus."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sharnn.errors import InputError, require_choice
from sharnn.settings import check_types, document_fields, from_mapping, one_of, setting

OPTIMIZERS = ("lamb", "adamw", "muon")
SCHEDULES = ("constant", "cosine", "linear")
PRECISIONS = ("auto", "float32", "float16", "bfloat16")
DEVICES = ("auto", "cpu", "cuda", "mps")
CLOCKS = ("wall", "cpu")
SHORTEST_SEGMENT = 5  # bytes


@document_fields
@dataclass(frozen=True)
class Recipe:
    """The settings of a training run. The defaults are the paper's, for the model with one head.

    A run ends when the first of ``steps``, ``epochs`` and ``minutes`` is reached; its progress
    towards that limit drives the learning rate. A recipe made with ``steps`` or ``minutes`` keeps
    the default of 25 epochs as a second limit, unless ``epochs=None``. With ``minutes`` the clock
    decides, so two such runs differ; the other limits make a run reproducible bit for bit on one
    number of threads.

    {fields}

    Raises:
        InputError: a setting is out of range, or there is no limit.

    Source: paper, training settings and their table; the author's code for the jitter.

    Example:
        >>> Recipe.preset("paper").lr
        0.002
        >>> Recipe(steps=10).learning_rate(step=399, progress=0.0)
        0.001
    """

    steps: int | None = setting(None, "maximum number of optimiser steps; none for no limit")
    epochs: float | None = setting(
        25, "maximum number of passes over the training bytes; none for no limit"
    )
    minutes: float | None = setting(None, "maximum training time in minutes; none for no limit")
    clock: str = setting(
        "wall",
        f"clock that measures minutes, {one_of(CLOCKS)}; cpu counts the processor time of all "
        "threads of the process, which other programs on the machine hardly change",
    )
    batch_size: int = setting(16, "streams trained in parallel")
    segment_length: int = setting(1024, "maximum length of a segment, in bytes")
    short_segments: float = setting(0.05, "fraction of segments with half of segment_length")
    segment_jitter: float = setting(5.0, "standard deviation of a segment's length, in bytes")
    optimizer: str = setting("lamb", one_of(OPTIMIZERS))
    lr: float = setting(2e-3, "peak learning rate")
    beta1: float = setting(0.9, "decay of the optimiser's mean of the gradient")
    beta2: float = setting(0.999, "decay of the optimiser's mean of the squared gradient")
    eps: float = setting(1e-6, "the optimiser's epsilon")
    weight_decay: float = setting(0.0, "the optimiser's weight decay")
    min_trust: float | None = setting(0.25, "LAMB's minimum trust ratio; none for plain LAMB")
    warmup_steps: int = setting(800, "steps of linear warm-up")
    schedule: str = setting("constant", f"{one_of(SCHEDULES)}; cosine and linear decay to 0")
    decay_from: float = setting(
        0.0,
        "with a cosine or linear schedule, fraction of the run after which the rate begins to "
        "decay",
    )
    halve_at: float | None = setting(
        23 / 25,
        "with a constant schedule, fraction of the run after which the rate is halved; none for "
        "never",
    )
    clip: float = setting(0.25, "maximum global norm of the gradient")
    precision: str = setting(
        "auto",
        f"{one_of(PRECISIONS)}; auto is float16 on CUDA (required by cuDNN's fast "
        "LSTM), bfloat16 on a CPU with fast bfloat16 arithmetic, else float32; also of validations "
        "on CUDA",
    )
    device: str = setting("auto", f"{one_of(DEVICES)}; auto is CUDA if available, else the CPU")
    seed: int = setting(0, "random seed for weights, dropout and segment lengths")
    log_every: int = setting(10, "steps between lines of metrics")
    eval_every: int = setting(1000, "steps between validations")
    eval_bytes: int | None = setting(None, "validation bytes used during training; none for all")
    eval_batch_size: int | None = setting(
        16, "streams scored in parallel in a validation; if none, one per 100,000 bytes, at most 8"
    )
    checkpoint_every: int = setting(1000, "steps between checkpoints")
    max_skips: int = setting(
        20, "consecutive steps with a non-finite loss or gradient after which the run stops"
    )

    def __post_init__(self) -> None:
        check_types(self)
        for name in (
            "batch_size",
            "segment_length",
            "log_every",
            "eval_every",
            "checkpoint_every",
            "max_skips",
        ):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("steps", "epochs", "minutes", "eval_bytes", "eval_batch_size"):
            value = getattr(self, name)
            self._require(name, value is None or value > 0, "more than 0")
        for name in ("lr", "eps", "clip"):
            value = getattr(self, name)
            self._require(name, value > 0, "a positive number")
        for name in ("weight_decay", "warmup_steps", "segment_jitter", "seed"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        for name in ("beta1", "beta2"):
            self._require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._require("short_segments", 0 <= self.short_segments <= 1, "from 0 to 1")
        self._require("decay_from", 0 <= self.decay_from < 1, "at least 0 and below 1")
        self._require("min_trust", self.min_trust is None or self.min_trust >= 0, "at least 0")
        self._require("halve_at", self.halve_at is None or 0 <= self.halve_at <= 1, "from 0 to 1")
        require_choice("optimizer", self.optimizer, OPTIMIZERS)
        require_choice("schedule", self.schedule, SCHEDULES)
        require_choice("precision", self.precision, PRECISIONS)
        require_choice("clock", self.clock, CLOCKS)
        require_choice("device", self.device, DEVICES)
        if self.steps is None and self.epochs is None and self.minutes is None:
            raise InputError("a run needs a limit: give steps, epochs or minutes")

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise InputError(f"{name} must be {what}, got {getattr(self, name)!r}")

    @classmethod
    def preset(cls, name: str) -> Recipe:
        """Returns the recipe for the model preset of the same name.

        Args:
            name: see `sharnn.ModelConfig.preset`.

        Raises:
            InputError: there is no preset of that name.

        Example:
            >>> Recipe.preset("paper-every-head").batch_size
            8
        """
        require_choice("preset", name, _PRESETS)
        return _PRESETS[name]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Returns the recipe with these field values, as `dataclasses.asdict` gives them.

        Raises:
            InputError: a name is unknown or a value is out of range.
        """
        return from_mapping(cls, values)

    def progress(self, step: int, epochs: float, seconds: float) -> float:
        """Returns the fraction of the run that is complete: 0 at the start, 1 or more at the end.

        Args:
            step: steps taken.
            epochs: passes over the training bytes, with the fraction of the current one.
            seconds: training time by the recipe's clock.
        """
        fractions = [
            (step, self.steps),
            (epochs, self.epochs),
            (seconds / 60, self.minutes),
        ]
        return max(spent / limit for spent, limit in fractions if limit is not None)

    def learning_rate(self, step: int, progress: float) -> float:
        """Returns the learning rate of one step.

        Args:
            step: steps taken before it.
            progress: see `progress`.
        """
        lr = self.lr * min(1.0, (step + 1) / max(self.warmup_steps, 1))
        progress = min(progress, 1.0)
        decayed = max(0.0, progress - self.decay_from) / (1 - self.decay_from)
        if self.schedule == "cosine":
            return lr * (1 + math.cos(math.pi * decayed)) / 2
        if self.schedule == "linear":
            return lr * (1 - decayed)
        return lr / 2 if self.halve_at is not None and progress >= self.halve_at else lr

    def segment_length_at(self, step: int) -> int:
        """Returns the length of one step's segment, in bytes.

        It depends on the seed and the step alone, and is between 5 (or ``segment_length`` if that
        is less) and ``segment_length``.

        Args:
            step: steps taken before it.
        """
        random = np.random.default_rng([self.seed, step])
        short = random.random() < self.short_segments
        base = self.segment_length / 2 if short else self.segment_length
        length = round(random.normal(base, self.segment_jitter))
        shortest = min(SHORTEST_SEGMENT, self.segment_length)
        return max(shortest, min(length, self.segment_length))


# Chosen by comparison at equal training time on 2 CPU cores: see RUNS.md.
_LAPTOP = Recipe(
    epochs=None,
    minutes=30,
    segment_length=128,
    optimizer="muon",
    lr=4e-3,
    beta2=0.99,
    eps=1e-8,
    warmup_steps=50,
    schedule="linear",
    clip=1.0,
    eval_every=500,
    eval_bytes=100_000,
    eval_batch_size=None,
    checkpoint_every=200,
)

_PRESETS = {
    "paper": Recipe(),
    "paper-no-head": Recipe(),
    "paper-every-head": Recipe(epochs=19, batch_size=8, halve_at=16 / 19),
    "tiny": dataclasses.replace(_LAPTOP, minutes=5),
    "small": _LAPTOP,
    "medium": dataclasses.replace(_LAPTOP, minutes=120),
}
