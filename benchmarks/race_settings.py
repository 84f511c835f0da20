"""The race as data: its track, contenders and trials, and the grid that every search walks.

Nothing here is measured. A contender is a set of changes to the race's own model, or a Transformer
of the same size, and the setting at which its search starts. The race's model and recipe are those
of the preset ``small`` when the race began; they are written out, so that a later change of the
preset leaves the race as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Track:
    """The conditions that are the same for every contender.

    Args:
        seconds: training time on one quiet CPU thread, which is turned into a number of steps.
        search_seconds: training time of a run of the searches and of a trial.
        parameters: maximum number of parameters.
        split: bytes of the file to train on, to choose settings on, and to score at the end.
        rounds: number of times that the duration of a step is compared with the reference.
    """

    seconds: float = 600.0
    search_seconds: float = 200.0
    parameters: int = 3_600_000
    split: tuple[int, int, int] = (3_200_000, 200_000, 200_000)
    rounds: int = 3


@dataclass(frozen=True)
class Setting:
    """A point of the grid.

    Args:
        lr: peak learning rate.
        length: maximum length of a segment, or a Transformer's context, in bytes.
        step_bytes: bytes in a step, which are ``step_bytes / length`` segments or windows.

    Example:
        >>> Setting(lr=0.004, length=128, step_bytes=2048).name
        'lr 0.004, 16 x 128'
    """

    lr: float
    length: int
    step_bytes: int

    @property
    def batch_size(self) -> int:
        """Number of streams, or of windows."""
        return max(1, self.step_bytes // self.length)

    @property
    def name(self) -> str:
        """Short description."""
        return f"lr {self.lr:g}, {self.batch_size} x {self.length}"


@dataclass(frozen=True)
class Contender:
    """One kind of model with its recipe; the search varies the rest.

    Args:
        name: name on the pages and in the results.
        start: the setting that is tried first; a trial's only one.
        model: changes to `sharnn.ModelConfig`; unused by a Transformer.
        recipe: changes to `sharnn.Recipe`; unused by a Transformer.
        transformer: ``"muon"`` or ``"adamw"`` for a Transformer with that optimiser; None for an
            SHA-RNN.
        turn: contenders with a lower number run first; those with the same number take turns.
        compared_with: name of the contender that a trial changes; None for a contender.
    """

    name: str
    start: Setting
    model: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    transformer: str | None = None
    turn: int = 0
    compared_with: str | None = None

    @property
    def has_head(self) -> bool:
        """True for an SHA-RNN with an attention head."""
        return self.transformer is None and self.model.get("attention_layers") != ()


@dataclass(frozen=True)
class Race:
    """Everything that determines which runs there are.

    Args:
        track: see `Track`.
        shape: the SHA-RNNs' common settings in `sharnn.ModelConfig`.
        recipe: everyone's common settings in `sharnn.Recipe`.
        transformer: width, depth and heads of the Transformers.
        contenders: those that are searched and then trained with several seeds.
        trials: others, which are trained at their start for the time of a search, and validated.
        axes: the values of each field of a `Setting`; the search varies the first field first.
        opening: lengths that every search tries first, with the start's other values.
        search_size: number of runs of each contender's search.
        search_seed: seed of all runs that choose a setting.
        seeds: seeds of the final runs.
        trial_seeds: seeds of the trials.
        quick: True for a small race that tests the harness.
    """

    track: Track
    shape: Mapping[str, Any]
    recipe: Mapping[str, Any]
    transformer: tuple[int, int, int]
    contenders: tuple[Contender, ...]
    trials: tuple[Contender, ...]
    axes: Mapping[str, tuple[Any, ...]]
    opening: tuple[int, ...]
    search_size: int
    search_seed: int = 0
    seeds: tuple[int, ...] = (1, 2, 3)
    trial_seeds: tuple[int, ...] = (0, 1, 2)
    quick: bool = False

    def contender(self, name: str) -> Contender:
        """Returns the contender or trial of a name."""
        return next(one for one in (*self.contenders, *self.trials) if one.name == name)

    def seconds(self, stage: str) -> float:
        """Returns the training time of a run, by its stage: see `benchmarks.race_search.STAGES`."""
        is_short = stage in ("search", "trial")
        return self.track.search_seconds if is_short else self.track.seconds


_SHAPE: Mapping[str, Any] = {
    "dim": 256,
    "boom_dim": 1024,
    "layers": 4,
    "attention_layers": (2,),
    "memory": 2048,
    "dropout": 0.0,
}
_RECIPE: Mapping[str, Any] = {
    "optimizer": "muon",
    "beta2": 0.99,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "warmup_steps": 50,
    "schedule": "linear",
    "clip": 1.0,
}

# The preset's setting, and the one that the pilot runs in RUNS.md point to.
PRESET = Setting(lr=4e-3, length=128, step_bytes=2048)
PILOT = Setting(lr=8e-3, length=64, step_bytes=2048)
NO_HEAD: Mapping[str, Any] = {"attention_layers": ()}
SKIP: Mapping[str, Any] = {"lstm_skip": 0.5}
INDUCTION: Mapping[str, Any] = {"shifted_keys": True, "query_gain": 4.0}

# The reference has its own name, so that its time does not depend on which contenders there are.
REFERENCE = Contender("reference", PRESET, NO_HEAD)

SHIFTED, PLAIN = "one head, shifted keys", "no head, LSTM skip"

CONTENDERS = (
    Contender(SHIFTED, PILOT, {**INDUCTION, **SKIP}),
    Contender(PLAIN, PILOT, {**NO_HEAD, **SKIP}),
    Contender("one head", PRESET, turn=1),
    Contender("Transformer, AdamW", Setting(2e-3, 64, 2048), transformer="adamw", turn=1),
    Contender("Transformer, Muon", Setting(8e-3, 64, 2048), transformer="muon", turn=1),
)

TRIALS = (
    Contender("no head", PILOT, NO_HEAD, compared_with=PLAIN),
    Contender("shifted keys and query gain only", PILOT, INDUCTION, compared_with=SHIFTED),
    Contender("LSTM skip only", PILOT, SKIP, compared_with=SHIFTED),
    Contender("no query gain", PILOT, {"shifted_keys": True, **SKIP}, compared_with=SHIFTED),
    Contender(
        "memory of 1024", PILOT, {**INDUCTION, **SKIP, "memory": 1024}, compared_with=SHIFTED
    ),
)

AXES: Mapping[str, tuple[Any, ...]] = {
    "lr": (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2),
    "step_bytes": (1024, 2048, 4096, 8192),
    "length": (32, 64, 128, 256, 512),
}

FULL = Race(
    track=Track(),
    shape=_SHAPE,
    recipe=_RECIPE,
    transformer=(256, 4, 4),
    contenders=CONTENDERS,
    trials=TRIALS,
    axes=AXES,
    opening=(64, 128, 256, 512),
    search_size=8,
)

_SMALL = Setting(lr=4e-3, length=16, step_bytes=64)
QUICK = Race(
    track=Track(0.03, 0.01, 60_000, (20_000, 600, 600), 1),
    shape={**_SHAPE, "dim": 32, "boom_dim": 64, "memory": 48},
    recipe=_RECIPE,
    transformer=(32, 2, 2),
    contenders=(
        Contender("one head", _SMALL),
        Contender("no head", _SMALL, NO_HEAD),
        Contender("Transformer, Muon", _SMALL, transformer="muon", turn=1),
    ),
    trials=(Contender("memory of 24", _SMALL, {"memory": 24}, compared_with="one head"),),
    axes={"lr": (2e-3, 4e-3, 8e-3), "step_bytes": (64, 128), "length": (8, 16, 32)},
    opening=(8, 16),
    search_size=3,
    quick=True,
)


def make_race(quick: bool, seconds: float | None = None, rounds: int | None = None) -> Race:
    """Returns the race, or the quick one, with another budget if one is given.

    Args:
        quick: return the small race that tests the harness.
        seconds: see `Track`; the time of a search changes in proportion. None for the race's own.
        rounds: see `Track`; None for the race's own.
    """
    race = QUICK if quick else FULL
    track = race.track
    scale = 1.0 if seconds is None else seconds / track.seconds
    track = dataclasses.replace(
        track,
        seconds=track.seconds if seconds is None else seconds,
        search_seconds=scale * track.search_seconds,
        rounds=track.rounds if rounds is None else rounds,
    )
    return dataclasses.replace(race, track=track)
