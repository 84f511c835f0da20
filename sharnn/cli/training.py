"""The commands ``sharnn train`` and ``sharnn paper``."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharnn.checkpoint import load
from sharnn.cli.data import data_files, open_shared_corpus
from sharnn.cli.exit import FAILED, INTERRUPTED, fail
from sharnn.cli.parsers import (
    Commands,
    add_fields,
    data_option,
    given_fields,
    quiet_option,
    split_option,
    threads_option,
)
from sharnn.config import PRESETS, ModelConfig
from sharnn.data import Split, corpus_name
from sharnn.device import keep_freed_memory, pick_device
from sharnn.distributed import ProcessGroup, process_group
from sharnn.errors import InputError
from sharnn.model import SHARNN
from sharnn.paper.backup import BACKUP_MINUTES, RunBackup
from sharnn.paper.reproduce import PUBLISHED, reproduce, require_folders
from sharnn.recipe import Recipe
from sharnn.run import SETTINGS, Result
from sharnn.run_checks import read_recorded_data
from sharnn.run_folder import require_new_folder, require_resumable
from sharnn.training import resume, train

DEFAULT_PRESET = "small"
# A dry run of the paper's run: a few steps through all its stages.
DRY_RUN = {"steps": 4, "checkpoint_every": 2, "eval_every": 2, "log_every": 1}
DRY_RUN_BYTES = 20_000  # scored in validation and test


def add_commands(commands: Commands) -> None:
    """Adds ``sharnn train`` and ``sharnn paper``."""
    _add_train(commands)
    _add_paper(commands)


def _add_train(commands: Commands) -> None:
    parser = commands.add(
        "train",
        run_train,
        "Train a model, or resume a run.",
        data_option(
            "the corpus: enwik8, enwiki2016, sample, or one or more files, which are concatenated"
        ),
        split_option(),
        quiet_option(),
        threads_option(),
    )
    parser.add_argument(
        "--preset", help=f"model and recipe: {', '.join(PRESETS)} (default: {DEFAULT_PRESET})"
    )
    parser.add_argument("--out", metavar="RUN", help="the folder of a new run")
    parser.add_argument(
        "--init", metavar="MODEL", help="start from the weights of a run, a file or a shipped model"
    )
    parser.add_argument("--resume", metavar="RUN", help="resume this run")
    parser.add_argument("--tensorboard", action="store_true", help="also write TensorBoard events")
    preset = f"defaults of the preset {DEFAULT_PRESET} in parentheses"
    add_fields(parser, f"model ({preset})", ModelConfig.preset(DEFAULT_PRESET))
    title = f"recipe ({preset}; a given limit of steps, epochs or minutes replaces the preset's)"
    add_fields(parser, title, Recipe.preset(DEFAULT_PRESET))


def _add_paper(commands: Commands) -> None:
    parser = commands.add(
        "paper",
        run_paper,
        "Train one of the paper's models to the end, and score it.",
        data_option("the corpus (default: enwik8)"),
        split_option(),
        quiet_option(),
        threads_option(),
    )
    parser.add_argument(
        "--preset", default="paper", choices=PUBLISHED, help="which of the paper's models to train"
    )
    parser.add_argument(
        "--out", default="runs/paper", metavar="RUN", help="run folder; an existing run is resumed"
    )
    parser.add_argument(
        "--keep",
        metavar="FOLDER",
        help="back up the run to this folder, and restore it if the run folder is lost",
    )
    parser.add_argument(
        "--keep-minutes",
        type=float,
        metavar="MINUTES",
        help=f"minutes between backups (default: {BACKUP_MINUTES})",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train for only a few steps, to test the setup; default --data: sample",
    )
    parser.add_argument("--tensorboard", action="store_true", help="also write TensorBoard events")
    add_fields(
        parser,
        "model (the paper's values in parentheses; change them only for trials)",
        ModelConfig(),
    )
    add_fields(parser, "recipe (the paper's values in parentheses)", Recipe())


@dataclass(frozen=True)
class NewRun:
    """The validated settings of a new run."""

    folder: str
    data: list[str]
    split: Split | None
    config: ModelConfig
    recipe: Recipe
    initial: SHARNN | None
    recorded: dict[str, Any]  # additional values for the run's config.json
    display: dict[str, Any]  # progress_bar and tensorboard

    def start(self, group: ProcessGroup) -> Result:
        """Trains the model, together with the other processes."""
        with group.shared_errors():
            if group.is_rank0:
                require_new_folder(self.folder, data_files(self.data))
        corpus = open_shared_corpus(group, self.data, self.split)
        return train(
            self.config,
            corpus,
            self.recipe,
            self.folder,
            initial=self.initial,
            settings=self.recorded,
            **self.display,
        )


@dataclass(frozen=True)
class ResumedRun:
    """The validated settings of a run to resume."""

    folder: str
    data: list[str] | None  # None for the data recorded in the run folder
    split: Split | None  # None for the recorded split
    recipe_changes: dict[str, Any]
    threads: int | None  # None for the recorded number
    display: dict[str, Any]  # progress_bar and tensorboard

    def start(self, group: ProcessGroup) -> Result:
        """Resumes training, together with the other processes."""
        found: tuple[list[str], Split | None] | None = None
        with group.shared_errors():
            if group.is_rank0:
                found = self._find_data()
        data, split = group.broadcast_object(found)  # type: ignore[misc]
        with group.shared_errors():
            if group.is_rank0:
                require_resumable(self.folder, data_files(data))
        corpus = open_shared_corpus(group, data, split)
        return resume(
            self.folder, corpus, self.recipe_changes, threads=self.threads, **self.display
        )

    def _find_data(self) -> tuple[list[str], Split | None]:
        """Returns the given data and split; what is not given is read from the run folder."""
        if self.data is not None and self.split is not None:
            return self.data, self.split
        try:
            data, split = read_recorded_data(Path(self.folder) / SETTINGS)
        except InputError:
            if self.data is None:
                raise
            return self.data, self.split
        return self.data or data, self.split or split


def run_train(options: argparse.Namespace) -> int:
    """Executes ``sharnn train``."""
    run = _resumed_run(options) if options.resume is not None else _new_run(options)
    keep_freed_memory()
    with process_group() as group:
        result = run.start(group)
        command = "sharnn" if group.world_size == 1 else "torchrun ... -m sharnn"
        hint = f"resume with: {command} train --resume {run.folder}"
        return _report(result, run.folder, group, hint)


def _new_run(options: argparse.Namespace) -> NewRun:
    if options.data is None or options.out is None:
        raise InputError("train needs --data and --out, or --resume (see sharnn train --help)")
    preset = options.preset or DEFAULT_PRESET
    initial = load(options.init) if options.init is not None else None
    shape = ModelConfig.preset(preset) if initial is None else initial.config
    recorded = {**_data_to_record(options.data, options.split), "preset": preset}
    if options.init is not None:
        recorded["init"] = options.init
    return NewRun(
        folder=options.out,
        data=options.data,
        split=options.split,
        config=dataclasses.replace(shape, **given_fields(options, ModelConfig)),
        recipe=dataclasses.replace(Recipe.preset(preset), **_recipe_changes(options)),
        initial=initial,
        recorded=recorded,
        display=_display(options),
    )


def _resumed_run(options: argparse.Namespace) -> ResumedRun:
    if options.out is not None and Path(options.out) != Path(options.resume):
        raise InputError("a resumed run stays in its folder: omit --out")
    if options.init is not None:
        raise InputError("--init is for new runs: a resumed run continues with its own weights")
    if options.preset is not None:
        raise InputError("--preset is for new runs: a resumed run keeps its model and recipe")
    model_changes = given_fields(options, ModelConfig)
    if model_changes:
        name = next(iter(model_changes)).replace("_", "-")
        raise InputError(f"--{name} can't change when a run is resumed")
    return ResumedRun(
        folder=options.resume,
        data=options.data,
        split=options.split,
        recipe_changes=_recipe_changes(options),
        threads=options.threads,
        display=_display(options),
    )


def _display(options: argparse.Namespace) -> dict[str, Any]:
    return {"progress_bar": not options.quiet, "tensorboard": options.tensorboard}


def _recipe_changes(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the recipe's fields given as options; given limits replace all of the preset's."""
    changes = given_fields(options, Recipe)
    limits = {"steps", "epochs", "minutes"}
    if not limits & changes.keys():
        return changes
    return {**dict.fromkeys(limits - changes.keys()), **changes}


def _data_to_record(source: list[str], split: Split | None) -> dict[str, Any]:
    """Returns the data and split for a run's config.json.

    Paths are absolute, to be found later, and a path can't be mistaken for the name of a corpus.
    """
    if corpus_name(source) is None:
        source = [str(Path(path).resolve()) for path in source]
    return {"data": source, "split": split}


def _report(result: Result, folder: str, group: ProcessGroup, hint: str) -> int:
    """Prints how a run ended and, if it did not complete, how to resume it."""
    if result.reason == "done":
        if group.is_rank0:
            print(f"{result.message}; saved in {folder}")
        return 0
    code = INTERRUPTED if result.reason == "interrupted" else FAILED
    return fail(f"{result.message}; saved in {folder}, {hint}", code)


def run_paper(options: argparse.Namespace) -> int:
    """Executes ``sharnn paper``."""
    source = options.data or ["enwik8"]
    recipe_changes = _recipe_changes(options)
    if options.dry_run:
        source = options.data or ["sample"]
        recipe_changes = {**DRY_RUN, "eval_bytes": DRY_RUN_BYTES, **recipe_changes}
        recipe_changes = {"epochs": None, "minutes": None, **recipe_changes}
    elif "device" not in recipe_changes and pick_device("auto").type == "cpu":
        raise InputError(
            "the paper's run needs a GPU, and this machine has none: try a few steps with "
            "--dry-run, or train on the CPU, for weeks, with --device cpu"
        )
    backup = None
    if options.keep is not None:
        minutes = BACKUP_MINUTES if options.keep_minutes is None else options.keep_minutes
        backup = RunBackup(options.out, options.keep, minutes)
    elif options.keep_minutes is not None:
        raise InputError("--keep-minutes is for backups: give --keep, the folder of the backup")
    keep_freed_memory()
    with process_group() as group:
        with group.shared_errors():
            if group.is_rank0:
                require_folders(options.out, data_files(source), backup)
        corpus = open_shared_corpus(group, source, options.split)
        if options.dry_run:
            corpus = dataclasses.replace(corpus, test=corpus.test[:DRY_RUN_BYTES])
        run = reproduce(
            options.out,
            corpus,
            preset=options.preset,
            model_changes=given_fields(options, ModelConfig),
            recipe_changes=recipe_changes,
            backup=backup,
            settings=_data_to_record(source, options.split),
            threads=options.threads,
            **_display(options),
        )
        code = _report(run.result, options.out, group, "resume with the same command")
        if code == 0 and group.is_rank0:
            print(run.table())
            if corpus.name != "enwik8" or options.dry_run:
                print("This was a trial: the paper's figures are for all of enwik8.")
        return code
