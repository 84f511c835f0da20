"""The paper's run from the download to its test figure, in as many sessions as it takes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sharnn.checkpoint import LAST, find_model, read, read_header
from sharnn.config import ModelConfig
from sharnn.data import Corpus
from sharnn.distributed import joined
from sharnn.errors import InputError
from sharnn.evaluate import bits_per_byte
from sharnn.paper.backup import Keeper
from sharnn.recipe import Recipe
from sharnn.run import Metrics, Result
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
    """A run and, once it has come to its end, its figures.

    Args:
        result: how the last session ended.
        test: bits per byte of the best checkpoint on the test bytes; None before the end.
        test_bytes: how many were scored.
        published: the paper's bits per byte, validation and test; None for other presets.
    """

    result: Result
    test: float | None
    test_bytes: int
    published: tuple[float, float] | None

    def table(self) -> str:
        """The figures beside the paper's.

        Returns:
            Three lines.
        """
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
    keeper: Keeper | None = None,
    on_metrics: Callable[[Metrics], None] | None = None,
    progress: bool = True,
    tensorboard: bool = False,
    settings: dict[str, Any] | None = None,
) -> Reproduction:
    """Trains one of the paper's models to the end and scores it as the paper does.

    Where the folder holds a run, this goes on with it: the same call is right for the first
    session, for the next after a cut, and for the last, which scores the test bytes.

    Args:
        out: the run folder.
        corpus: enwik8, or what stands for it in a trial.
        preset: ``"paper"``, ``"paper-no-head"`` or ``"paper-every-head"``.
        model_changes: settings of the model to replace, for a trial.
        recipe_changes: settings of the recipe to replace.
        keeper: keeps copies of the folder, and brings them back where the folder is gone.
        on_metrics, progress, tensorboard, settings: see `train`.

    Returns:
        The run, with its figures if it has come to its end.

    Raises:
        InputError: the folder holds a run of another model; and see `train` and `resume`.

    Source: paper, results on enwik8.

    Example:
        >>> import tempfile
        >>> from sharnn.data import load_corpus
        >>> corpus = load_corpus("sample", sample_size=20_000)
        >>> model = {"dim": 16, "boom_dim": 64, "memory": 64}
        >>> recipe = {"steps": 2, "batch_size": 2, "segment_length": 16}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = reproduce(
        ...         folder, corpus, model_changes=model, recipe_changes=recipe, progress=False
        ...     )
        >>> run.result.reason, run.published, run.test < 8.1
        ('done', (1.1, 1.076), True)
    """
    out = Path(out)
    show: dict[str, Any] = {
        "on_metrics": on_metrics,
        "progress": progress,
        "tensorboard": tensorboard,
    }
    with joined() as ranks:
        if keeper is not None:
            ranks.first(keeper.restore)
            show["on_checkpoint"] = lambda: keeper.save() if keeper.due() else None
        config = dataclasses.replace(ModelConfig.preset(preset), **(model_changes or {}))
        if ranks.first(lambda: _holds(out, config)):
            result = resume(out, corpus, recipe_changes, **show)
        else:
            recipe = dataclasses.replace(Recipe.preset(preset), **(recipe_changes or {}))
            settings = {"preset": preset, **(settings or {})}
            result = train(config, corpus, recipe, out, settings=settings, **show)
        if keeper is not None:
            ranks.first(keeper.save)
        test = None
        if result.reason == "done":
            best = ranks.agree(lambda: _weights(out) if ranks.is_first else {})
            result.model.load_state_dict(ranks.spread(best))
            test = bits_per_byte(
                result.model,
                corpus.test,
                batch_size=TEST_STREAMS,
                segment_length=TEST_SEGMENT,
                ranks=ranks,
            )
    return Reproduction(result, test, len(corpus.test) - 1, PUBLISHED.get(preset))


def _holds(folder: Path, config: ModelConfig) -> bool:
    """Whether a folder holds a run; one of another model is refused."""
    if not (folder / LAST).exists():
        return False
    if ModelConfig.from_dict(read_header(folder / LAST)["config"]) != config:
        raise InputError(f"{folder} holds a run of another model: name another folder")
    return True


def _weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a run's best checkpoint."""
    return read(find_model(folder), training=False)[0]
