"""Helpers for notebooks: a size switch, tables, timing and files."""

from __future__ import annotations

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

T = TypeVar("T")
SIZES = ("small", "large")
NUMBER = re.compile(r"[-+<>]?\d[\d.,]*(e[-+]?\d+)?( ?(%|[A-Za-z]{1,2}))?( ± [\d.,]+)?")


class Size:
    """Chooses between a notebook's small and large settings: small on a CPU, large on a GPU.

    Args:
        name: ``"small"`` or ``"large"``. None uses the environment variable ``SHARNN_SIZE`` or, if
            it is not set, ``"large"`` if there is a GPU and ``"small"`` otherwise.

    Attributes:
        device: the device on which the notebook computes.

    Raises:
        InputError: the size is neither ``"small"`` nor ``"large"``.

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
        """Returns the value for this size."""
        return small if self.name == "small" else large

    def __repr__(self) -> str:
        if self.device.type == "cuda":
            return f"{self.name} setting on {torch.cuda.get_device_name()}"
        threads = torch.get_num_threads()
        return f"{self.name} setting on {threads} CPU thread{'s' if threads > 1 else ''}"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Markdown:
    """Builds a Markdown table that a notebook displays. Columns of numbers are right-aligned.

    Args:
        header: the names of the columns.
        rows: the cells of each row; Markdown in a cell is rendered.

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
    """Returns whether all cells are empty or numbers, possibly bold, with a unit or an error."""
    filled = [cell.strip("*") for cell in cells if cell]
    return bool(filled) and all(NUMBER.fullmatch(cell) for cell in filled)


def timed(function: Callable[[], T], repeats: int = 1) -> tuple[T, float]:
    """Calls a function and measures its time, including work queued on a GPU.

    Args:
        function: the function to call.
        repeats: number of calls. The minimum time is returned, since other programs can only make
            a call slower.

    Returns:
        The value of the last call, and the minimum time in seconds.

    Example:
        >>> value, seconds = timed(lambda: sum(range(1000)), repeats=3)
        >>> value, seconds > 0
        (499500, True)
    """
    minimum = float("inf")
    for _ in range(repeats):
        _synchronize()
        start = time.perf_counter()
        value = function()
        _synchronize()
        minimum = min(minimum, time.perf_counter() - start)
    return value, minimum


def _synchronize() -> None:
    """Waits for queued work on a GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def repository_file(name: str, sha256: str) -> Path:
    """Returns the path of a repository file, which is downloaded if there is no clone.

    Args:
        name: path of the file within the repository.
        sha256: checksum of the file, which is checked after a download.

    Returns:
        The file's path in the clone, or in the cache if it was downloaded.

    Raises:
        InputError: the file is not in a clone and can't be downloaded.
    """
    here = Path(__file__).resolve().parents[2] / name
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
    except Exception as error:  # pooch and its backends raise many types
        raise InputError(f"{name} was not found and could not be downloaded from {url}") from error
