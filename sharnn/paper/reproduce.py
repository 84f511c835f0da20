"""The paper's run, from training to its test score, in any number of sessions."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sharnn.checkpoint import LAST, find_model, read
from sharnn.config import ModelConfig
from sharnn.data import Corpus
from sharnn.distributed import process_group
from sharnn.errors import InputError
from sharnn.evaluate import bits_per_byte
from sharnn.io.files import require_folder
from sharnn.paper.backup import RunBackup
from sharnn.recipe import Recipe
from sharnn.run import Metrics, Result
from sharnn.run_checks import read_run_config
from sharnn.run_folder import create_folder, locked_run, require_new_folder, require_resumable
from sharnn.training import resume, train

# Paper, table of results: bits per byte on enwik8, validation and test.
PUBLISHED = {
    "paper-no-head": (1.312, 1.330),
    "paper": (1.100, 1.076),
    "paper-every-head": (1.096, 1.068),
}
TEST_STREAMS, TEST_SEGMENT = 8, 1024  # Source: the author's code


@dataclass(frozen=True)
class Reproduction:
    """A run and, if it is complete, its scores.

    Args:
        result: the result of the last session.
        test: bits per byte of the best checkpoint on the test bytes; None if the run is not
            complete.
        test_bytes: number of test bytes that are scored.
        published: the paper's bits per byte, validation and test; None for other presets.
    """

    result: Result
    test: float | None
    test_bytes: int
    published: tuple[float, float] | None

    def table(self) -> str:
        """Returns a table, in three lines, of this run's scores below the paper's."""
        lines = ["bits per byte             valid   test"]
        if self.published is not None:
            lines.append("the paper, on enwik8      {:.3f}  {:.3f}".format(*self.published))
        if self.test is not None and self.result.best is not None:
            lines.append(f"this run                  {self.result.best:.3f}  {self.test:.3f}")
        return "\n".join(lines)


def reproduce(
    out: str | os.PathLike[str],
    corpus: Corpus,
    *,
    preset: str = "paper",
    model_changes: dict[str, Any] | None = None,
    recipe_changes: dict[str, Any] | None = None,
    backup: RunBackup | None = None,
    on_metrics: Callable[[Metrics], None] | None = None,
    progress_bar: bool = True,
    tensorboard: bool = False,
    settings: dict[str, Any] | None = None,
    threads: int | None = None,
) -> Reproduction:
    """Trains one of the paper's models to the end and scores it as the paper does.

    If the folder holds a run, it is resumed. So the same call serves the first session, every
    session after an interruption, and the last one, which scores the test bytes.

    Args:
        out: the run folder.
        corpus: enwik8, or a smaller corpus for a trial.
        preset: ``"paper"``, ``"paper-no-head"`` or ``"paper-every-head"``.
        model_changes: settings of the model to replace, for a trial.
        recipe_changes: settings of the recipe to replace.
        backup: backs up the folder, and restores it if it was lost; None for no backup.
        on_metrics, progress_bar, tensorboard, settings: see `train`.
        threads: see `resume`.

    Raises:
        InputError: the folder holds a run of another model; and see `train`, `resume` and
            `RunBackup`.

    Source: paper, results on enwik8.

    Example:
        >>> import tempfile
        >>> from sharnn.data import load_corpus
        >>> corpus = load_corpus("sample", sample_size=20_000)
        >>> model = {"dim": 16, "boom_dim": 64, "memory": 64}
        >>> recipe = {"steps": 2, "batch_size": 2, "segment_length": 16}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = reproduce(
        ...         folder, corpus, model_changes=model, recipe_changes=recipe, progress_bar=False
        ...     )
        >>> run.result.reason, run.published, run.test < 8.1
        ('done', (1.1, 1.076), True)
    """
    out = Path(out)
    config = dataclasses.replace(ModelConfig.preset(preset), **(model_changes or {}))
    options: dict[str, Any] = {
        "on_metrics": on_metrics,
        "on_checkpoint": backup.save_if_due if backup is not None else None,
        "progress_bar": progress_bar,
        "tensorboard": tensorboard,
    }
    with process_group() as group, ExitStack() as stack:
        resuming = False
        with group.shared_errors():
            if group.is_rank0:
                require_folders(out, (), backup)
                _holds_run(out, config)  # before the folder is changed
                create_folder(out)
                stack.enter_context(locked_run(out))
                if backup is not None:
                    backup.restore()
                resuming = _holds_run(out, config)
        if group.broadcast_object(resuming):
            result = resume(out, corpus, recipe_changes, threads=threads, **options)
        else:
            recipe = dataclasses.replace(Recipe.preset(preset), **(recipe_changes or {}))
            settings = {"preset": preset, **(settings or {})}
            result = train(config, corpus, recipe, out, settings=settings, **options)
        complete = result.reason == "done"
        best: dict[str, Tensor] = {}
        with group.shared_errors():
            if group.is_rank0:
                if backup is not None:
                    backup.save()
                if complete:
                    best, _ = read(find_model(out), training=False)
        test = None
        if complete:
            result.model.load_state_dict(group.broadcast(best))
            test = bits_per_byte(
                result.model,
                corpus.test,
                batch_size=TEST_STREAMS,
                segment_length=TEST_SEGMENT,
                group=group,
            )
    return Reproduction(result, test, len(corpus.test) - 1, PUBLISHED.get(preset))


def require_folders(
    out: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]], backup: RunBackup | None
) -> None:
    """Checks the run folder and the backup's before the work; see `reproduce`.

    Args:
        out: the run folder.
        inputs: the files that the run reads.
        backup: the run's backup; None for no backup.

    Raises:
        InputError: a folder can't be used, or the run would overwrite an input.
    """
    if backup is not None:
        backup.check(inputs)
    # Restoring a run overwrites no other files: `RunBackup.restore`.
    if (Path(out) / LAST).exists() or (backup is not None and backup.has_copy()):
        require_folder(out)
        require_resumable(out, inputs)
    else:
        require_new_folder(out, inputs)


def _holds_run(folder: Path, config: ModelConfig) -> bool:
    """Returns True if a folder holds a run of this model.

    Raises:
        InputError: it holds a run of another model.
    """
    if not (folder / LAST).exists():
        return False
    if read_run_config(folder / LAST) != config:
        raise InputError(f"{folder} holds a run of another model: give another folder")
    return True
