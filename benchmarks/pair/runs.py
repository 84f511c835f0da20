"""The two runs of the matched pair: started, continued, and finished with a falling rate.

A schedule that falls to 0 fixes the length of a run in advance. The pair is compared at several
lengths, and may be continued on a later day. So each contender has a *trunk*, which is trained at
a constant learning rate and can be continued at any time. `finish` copies the trunk's last
checkpoint to a new folder and continues this *branch*, while the rate falls linearly to 0 over the
last fifth of its steps. It does not change the trunk, which can be continued and finished again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sharnn
from benchmarks.machine import machine
from benchmarks.pair.texts import PairTexts
from sharnn import ModelConfig, Recipe
from sharnn.checkpoint import LAST, read_header
from sharnn.io.files import read_file, write_atomically
from sharnn.run import METRICS, SETTINGS, Metrics, Result
from sharnn.run_checks import check_header
from sharnn.run_folder import create_folder, require_new_folder
from sharnn.trainer import Trainer

CONTENDERS = ("head", "no-head")
PRESET = "small"
# Changes of the preset: its model, with a head, and its recipe.
MODEL: dict[str, Any] = {"shifted_keys": True, "query_gain": 4.0, "lstm_skip": 0.5}
RECIPE: dict[str, Any] = {
    "lr": 8e-3,
    "batch_size": 32,
    "segment_length": 64,
    "schedule": "constant",
    "halve_at": None,
    "minutes": 120,
    "clock": "cpu",
    "log_every": 50,
    "eval_every": 500,
    "eval_bytes": None,
    "eval_batch_size": 4,
    "checkpoint_every": 250,
}
DECAY_SHARE = 0.2  # of all steps of a finished run
WIKI_BYTES = 100_000  # of enwiki2016's validation part, scored in each validation
WIKI_STREAMS = 8
LIMITS = ("steps", "epochs", "minutes")  # may change when a trunk is continued
SESSIONS = "sessions.jsonl"  # in the run folder: commit, machine and command of each session


def base_settings(preset: str = PRESET) -> tuple[ModelConfig, Recipe]:
    """Returns the model with a head, and the recipe of both trunks."""
    config = dataclasses.replace(ModelConfig.preset(preset), **MODEL)
    return config, dataclasses.replace(Recipe.preset(preset), **RECIPE)


def config_of(contender: str, config: ModelConfig) -> ModelConfig:
    """Returns the model of a contender; without a head it differs in nothing else.

    Args:
        contender: one of `CONTENDERS`.
        config: the model with a head.
    """
    return dataclasses.replace(config, attention_layers=()) if contender == "no-head" else config


def train_trunk(
    contender: str,
    folder: Path,
    texts: PairTexts,
    config: ModelConfig,
    recipe: Recipe,
    command: Sequence[str] = (),
    progress_bar: bool = False,
) -> Result:
    """Starts the trunk of a contender, or continues the one in the folder.

    Args:
        contender: one of `CONTENDERS`.
        folder: the run folder.
        texts: the texts.
        config: the model with a head.
        recipe: the settings; to continue a trunk, only its limits can change.
        command: the words of the command line, to be recorded.
        progress_bar: show a progress bar on standard error.

    Raises:
        sharnn.InputError: the folder has another run or other files, or is in use.
    """
    config = config_of(contender, config)
    if not (folder / LAST).is_file():
        settings = {"contender": contender}
        return sharnn.train(
            config,
            texts.corpus,
            recipe,
            folder,
            settings=settings,
            progress_bar=progress_bar,
            **_callbacks(folder, texts, command, step=0),
        )
    header = read_run(folder)
    given = {"contender": contender, **config.to_dict(), **dataclasses.asdict(recipe)}
    recorded = {"contender": contender_of(folder), **header["config"], **header["recipe"]}
    for name, value in given.items():
        if name not in LIMITS and recorded.get(name) != value:
            raise sharnn.InputError(
                f"{folder} was trained with {name} {recorded.get(name)}, not {value}: give the "
                "settings it was started with, or another folder"
            )
    limits = {name: given[name] for name in LIMITS}
    callbacks = _callbacks(folder, texts, command, header["training"]["step"])
    return sharnn.resume(folder, texts.corpus, limits, progress_bar=progress_bar, **callbacks)


def finish(
    trunk: Path,
    folder: Path,
    texts: PairTexts,
    share: float = DECAY_SHARE,
    command: Sequence[str] = (),
    progress_bar: bool = False,
) -> Result:
    """Trains a branch from a trunk's last checkpoint to its end, or continues the branch.

    Args:
        trunk: the run folder of the trunk, which may be in training.
        folder: the run folder of the branch.
        texts: the texts.
        share: fraction of all steps, those of the trunk included, over which the rate falls to 0.
        command: the words of the command line, to be recorded.
        progress_bar: show a progress bar on standard error.

    Raises:
        sharnn.InputError: ``trunk`` is not a trunk, ``share`` is out of range, or the folder has
            other files or is in use.
    """
    if not 0 < share < 1:
        raise sharnn.InputError(f"the share of the decay must be between 0 and 1, got {share}")
    if not (folder / LAST).is_file():
        require_new_folder(folder)
        _copy_run(trunk, folder)
    header = read_run(folder)
    changes: dict[str, Any] = {}
    if header["recipe"]["schedule"] == "constant":  # otherwise the decay has begun
        start = header["training"]["step"]
        steps = max(start + 1, round(start / (1 - share)))
        changes = dict.fromkeys(LIMITS) | {
            "steps": steps,
            "schedule": "linear",
            "decay_from": start / steps,
        }
    callbacks = _callbacks(folder, texts, command, header["training"]["step"])
    return sharnn.resume(folder, texts.corpus, changes, progress_bar=progress_bar, **callbacks)


def _copy_run(trunk: Path, folder: Path) -> None:
    """Copies a trunk; the checkpoint is last, because it makes the folder a run."""
    header = read_run(trunk)
    if header["recipe"]["schedule"] != "constant" or not header["training"]["step"]:
        raise sharnn.InputError(f"{trunk} is not a trunk that has been trained: name one")
    create_folder(folder)
    checkpoint = read_file(trunk / LAST)
    for name in (SETTINGS, METRICS, SESSIONS):
        write_atomically(folder / name, read_file(trunk / name))
    write_atomically(folder / LAST, checkpoint)


def read_run(folder: Path) -> dict[str, Any]:
    """Returns the header of a run's last checkpoint.

    Raises:
        sharnn.InputError: there is no run, or its checkpoint is damaged.
    """
    if not (folder / LAST).is_file():
        raise sharnn.InputError(f"{folder} contains no run: it has no {LAST}")
    header = read_header(folder / LAST)
    check_header(header)
    return header


def contender_of(folder: Path) -> str:
    """Returns the contender that a run folder belongs to.

    Raises:
        sharnn.InputError: the run is none of the pair's.
    """
    try:
        contender = json.loads(read_file(folder / SETTINGS))["contender"]
    except (ValueError, KeyError, TypeError) as error:
        raise sharnn.InputError(f"{folder} is not a run of the pair") from error
    if contender not in CONTENDERS:
        raise sharnn.InputError(f"{folder} is not a run of the pair")
    return str(contender)


def _callbacks(folder: Path, texts: PairTexts, command: Sequence[str], step: int) -> dict[str, Any]:
    """Returns the callbacks of a session: they score enwiki2016 and record the session.

    Args:
        folder: the run folder.
        texts: the texts.
        command: the words of the command line.
        step: number of steps before the session.
    """
    recorded = False

    def record_session() -> None:
        """Records the session with its first checkpoint: without one it changed nothing."""
        nonlocal recorded
        if not recorded:
            line = json.dumps({"command": without_folders(command), "from_step": step, **machine()})
            with open(folder / SESSIONS, "a") as file:
                file.write(line + "\n")
        recorded = True

    def score_wiki(trainer: Trainer) -> Metrics:
        bits = sharnn.bits_per_byte(
            trainer.model, texts.wiki.valid[:WIKI_BYTES], batch_size=WIKI_STREAMS
        )
        return {
            "bytes_read": trainer.bytes_read,
            "seconds": round(trainer.seconds, 2),
            "cpu_seconds": round(trainer.cpu_seconds, 2),
            "enwiki2016": round(bits, 5),
        }

    return {"on_checkpoint": record_session, "on_validation": score_wiki}


def without_folders(command: Sequence[str]) -> list[str]:
    """Returns the words of a command without the folders of paths, which are private.

    Example:
        >>> without_folders(["train", "--data", "/home/me/head"])
        ['train', '--data', 'head']
    """
    return [word.rsplit("/", 1)[-1] for word in command]
