"""How a model is trained: every setting of a run that isn't the model's shape or the corpus."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sharnn.errors import InputError

OPTIMIZERS = ("lamb", "adamw", "muon")
SCHEDULES = ("constant", "cosine", "linear")
PRECISIONS = ("auto", "float32", "float16", "bfloat16")
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run. The defaults are the paper's, with one head.

    A run ends at the first of ``steps``, ``epochs`` and ``minutes`` that is reached; the share of
    it that is done drives the schedule. With ``minutes`` the clock decides, so two such runs
    differ; with the others a run can be repeated bit for bit on one number of threads.

    Args:
        steps: optimiser steps; None for no limit.
        epochs: passes over the training bytes; None for no limit.
        minutes: time spent training; None for no limit.
        batch_size: streams trained side by side.
        segment_length: longest segment, in bytes.
        short_segments: share of segments of half that length.
        segment_jitter: standard deviation of a segment's length, in bytes.
        optimizer: ``"lamb"``, ``"adamw"`` or ``"muon"``.
        lr: peak learning rate.
        beta1, beta2: decays of the optimiser's running means.
        eps: the optimiser's epsilon.
        weight_decay: the optimiser's weight decay.
        min_trust: LAMB's least trust ratio; None for none.
        warmup_steps: steps of linear warm-up.
        schedule: ``"constant"``, ``"cosine"`` or ``"linear"`` (the last two fall to 0).
        halve_at: share of the run after which a constant learning rate is halved; None for never.
        clip: largest global norm of the gradient.
        precision: ``"auto"`` is float16 on a CUDA device (cuDNN's fast LSTM needs it), bfloat16
            on a CPU that multiplies it fast, else float32.
        device: ``"auto"`` is CUDA where there is one, else the CPU.
        seed: seed of weights, dropout and segment lengths.
        log_every: steps between lines of metrics.
        eval_every: steps between validations.
        eval_bytes: validation bytes used while training; None for all.
        eval_batch_size: streams scored side by side in a validation; None for one for each
            100,000 bytes, 8 at most.
        checkpoint_every: steps between checkpoints.
        max_skips: steps in a row with a non-finite loss or gradient after which the run stops.

    Raises:
        InputError: a setting is out of range, or the run would never end.

    Source: paper, training settings and their table; the author's code for the jitter.

    Example:
        >>> Recipe.preset("paper").lr
        0.002
        >>> Recipe(steps=10).learning_rate(step=399, done=0.0)
        0.001
    """

    steps: int | None = None
    epochs: float | None = 25
    minutes: float | None = None
    batch_size: int = 16
    segment_length: int = 1024
    short_segments: float = 0.05
    segment_jitter: float = 5.0
    optimizer: str = "lamb"
    lr: float = 2e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    weight_decay: float = 0.0
    min_trust: float | None = 0.25
    warmup_steps: int = 800
    schedule: str = "constant"
    halve_at: float | None = 23 / 25
    clip: float = 0.25
    precision: str = "auto"
    device: str = "auto"
    seed: int = 0
    log_every: int = 10
    eval_every: int = 1000
    eval_bytes: int | None = None
    eval_batch_size: int | None = 16
    checkpoint_every: int = 1000
    max_skips: int = 20

    def __post_init__(self) -> None:
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
            self._require(name, 0 < value < math.inf, "a positive number")
        for name in ("weight_decay", "warmup_steps", "segment_jitter", "seed"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "at least 0")
        self._require("seed", self.seed < 2**63, "below 2**63")
        for name in ("beta1", "beta2"):
            self._require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._require("short_segments", 0 <= self.short_segments <= 1, "from 0 to 1")
        self._require("min_trust", self.min_trust is None or self.min_trust >= 0, "at least 0")
        self._require("halve_at", self.halve_at is None or 0 <= self.halve_at <= 1, "from 0 to 1")
        self._require("optimizer", self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}")
        self._require("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}")
        self._require("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        self._require("device", self.device in DEVICES, f"one of {', '.join(DEVICES)}")
        if self.steps is None and self.epochs is None and self.minutes is None:
            raise InputError("a run needs an end: give steps, epochs or minutes")

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise InputError(f"{name} must be {what}, got {getattr(self, name)!r}")

    @classmethod
    def preset(cls, name: str) -> Recipe:
        """The recipe that goes with the model preset of the same name.

        Args:
            name: see `sharnn.ModelConfig.preset`.

        Returns:
            The recipe.

        Raises:
            InputError: there is no preset of that name.

        Example:
            >>> Recipe.preset("paper-every-head").batch_size
            8
        """
        if name not in _PRESETS:
            raise InputError(f"no preset named {name!r}; there are: {', '.join(_PRESETS)}")
        return _PRESETS[name]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that `dataclasses.asdict` took apart.

        Args:
            values: field names and their values, as read from JSON.

        Returns:
            The recipe.

        Raises:
            InputError: a name is unknown or a value is out of range.
        """
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise InputError(f"unknown training setting {unknown[0]!r}")
        return cls(**values)

    def done(self, step: int, epochs: float, seconds: float) -> float:
        """The share of the run that is done.

        Args:
            step: steps taken.
            epochs: passes over the training bytes, the current one's share included.
            seconds: time spent training.

        Returns:
            0 at the start, 1 or more where the run ends.
        """
        shares = [
            (step, self.steps),
            (epochs, self.epochs),
            (seconds / 60, self.minutes),
        ]
        return max(spent / limit for spent, limit in shares if limit is not None)

    def learning_rate(self, step: int, done: float) -> float:
        """The learning rate of one step.

        Args:
            step: steps taken before it.
            done: the share of the run that is done.

        Returns:
            The learning rate.
        """
        lr = self.lr * min(1.0, (step + 1) / max(self.warmup_steps, 1))
        done = min(done, 1.0)
        if self.schedule == "cosine":
            return lr * (1 + math.cos(math.pi * done)) / 2
        if self.schedule == "linear":
            return lr * (1 - done)
        return lr / 2 if self.halve_at is not None and done >= self.halve_at else lr

    def segment(self, step: int) -> int:
        """The length of one step's segment, in bytes. It depends on the seed and the step alone.

        Args:
            step: steps taken before it.

        Returns:
            Between 5 (or ``segment_length`` where that is less) and ``segment_length``.
        """
        random = np.random.default_rng([self.seed, step])
        short = random.random() < self.short_segments
        base = self.segment_length / 2 if short else self.segment_length
        length = round(random.normal(base, self.segment_jitter))
        return max(min(5, self.segment_length), min(length, self.segment_length))


# Chosen by measurement at equal time on 2 CPU cores: see RUNS.md.
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
