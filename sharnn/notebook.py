"""What the book's notebooks share: one size switch, tables, timing, knobs and files.

It needs what ``pip install "sharnn[book]"`` brings. Nothing else in the library imports it.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from sharnn.errors import InputError

if TYPE_CHECKING:
    from IPython.display import Markdown
    from matplotlib.figure import Figure

T = TypeVar("T")
SIZES = ("small", "large")
NUMBER = re.compile(r"[-+<>]?\d[\d.,]*(e[-+]?\d+)?( ?(%|[A-Za-z]{1,2}))?( ± [\d.,]+)?")


class Size:
    """The size switch of a notebook: small on a CPU, large where there is a GPU.

    Args:
        name: ``"small"`` or ``"large"``; None takes the environment variable ``SHARNN_SIZE``, and
            without it chooses by the machine.

    Attributes:
        device: where the notebook computes.

    Raises:
        InputError: there is no such size.

    Example:
        >>> size = Size("small")
        >>> steps = size(100, 5000)
        >>> steps
        100
    """

    def __init__(self, name: str | None = None) -> None:
        has_gpu = torch.cuda.is_available()
        self.name = name or os.environ.get("SHARNN_SIZE") or ("large" if has_gpu else "small")
        if self.name not in SIZES:
            raise InputError(f"SHARNN_SIZE must be small or large, got {self.name!r}")
        self.device = torch.device("cuda" if has_gpu else "cpu")

    def __call__(self, small: T, large: T) -> T:
        """The value for this size."""
        return small if self.name == "small" else large

    def __repr__(self) -> str:
        if self.device.type == "cuda":
            return f"{self.name} setting on {torch.cuda.get_device_name()}"
        threads = torch.get_num_threads()
        return f"{self.name} setting on {threads} CPU thread{'s' if threads > 1 else ''}"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Markdown:
    """A table that a notebook shows. Columns of numbers are set flush right.

    Args:
        header: the columns' names.
        rows: a sequence of cells for each row; Markdown in a cell is obeyed.

    Returns:
        What the last line of a cell displays.

    Example:
        >>> print(table(["model", "bits"], [["a", 1.5]]).data)
        | model | bits |
        |---|---:|
        | a | 1.5 |
    """
    from IPython.display import Markdown

    body = [[str(cell) for cell in cells] for cells in rows]
    columns = zip(*body, strict=True) if body else [()] * len(header)
    rules = ["---:" if _are_numbers(column) else "---" for column in columns]
    lines = ["| " + " | ".join(cells) + " |" for cells in [header, *body]]
    return Markdown("\n".join([lines[0], "|" + "|".join(rules) + "|", *lines[1:]]))


def _are_numbers(cells: Sequence[str]) -> bool:
    """Whether each cell is a number, perhaps bold, with a short unit or an error; or empty."""
    filled = [cell.strip("*") for cell in cells if cell]
    return bool(filled) and all(NUMBER.fullmatch(cell) for cell in filled)


def timed(function: Callable[[], T], repeats: int = 1) -> tuple[T, float]:
    """Calls a function and takes its time, that of the device included.

    Args:
        function: what to time.
        repeats: how often to call it; other programs can only make it slower, so the least counts.

    Returns:
        Its last value and the least number of seconds.

    Example:
        >>> value, seconds = timed(lambda: sum(range(1000)), repeats=3)
        >>> value, seconds > 0
        (499500, True)
    """
    least = float("inf")
    for _ in range(repeats):
        _wait()
        start = time.perf_counter()
        value = function()
        _wait()
        least = min(least, time.perf_counter() - start)
    return value, least


def _wait() -> None:
    """Lets a GPU finish what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Knobs:
    """A figure with controls: they move in a live notebook, and a page shows the figure.

    Args:
        draw: takes the controls' values by name and returns a matplotlib figure.
        controls: for each argument what `ipywidgets.interact` takes: a widget, or for example
            ``(low, high, step)`` or a list of choices.

    Example:
        >>> from sharnn.plots import panels
        >>> knobs = Knobs(lambda n: panels()[0].figure, n=(1, 5))
        >>> knobs.controls  # the last line of a cell would show them
        {'n': (1, 5)}
    """

    def __init__(self, draw: Callable[..., Figure], **controls: Any) -> None:
        self.draw, self.controls = draw, controls

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """The controls for whoever can show them, and the figure for whoever can't."""
        import ipywidgets
        import matplotlib.pyplot as plt
        from IPython.display import display

        def redraw(**values: Any) -> None:
            figure = self.draw(**values)
            display(figure)
            plt.close(figure)

        widget = ipywidgets.interactive(redraw, **self.controls)
        figure = self.draw(**widget.kwargs)
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        plt.close(figure)
        return {**widget._repr_mimebundle_(), "image/png": picture.getvalue()}


def repository_file(name: str, sha256: str) -> Path:
    """A file of the repository that is not part of the installed package.

    Args:
        name: its path in the repository.
        sha256: what it must be; only checked where it is downloaded.

    Returns:
        Its path in the clone, or in the cache after a download.

    Raises:
        InputError: it is not here and can't be downloaded.
    """
    here = Path(__file__).resolve().parent.parent / name
    if here.is_file():
        return here
    import pooch

    address = next(
        value.partition(", ")[2]
        for value in metadata("sharnn").get_all("Project-URL") or []
        if value.startswith("Repository, ")
    )
    url = f"{address.replace('github.com', 'raw.githubusercontent.com')}/main/{name}"
    try:
        return Path(pooch.retrieve(url, sha256, path=pooch.os_cache("sharnn")))
    except Exception as error:  # whatever goes wrong on the way, the answer is the same
        raise InputError(f"{name} is not here and could not be downloaded from {url}") from error
