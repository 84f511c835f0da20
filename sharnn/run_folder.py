"""Protection of files: run folders, the lock on them, and inputs that outputs would overwrite."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from sharnn.checkpoint import BEST, LAST
from sharnn.errors import InputError
from sharnn.io.files import is_same_file, remove_leftovers, require_folder, require_writable
from sharnn.io.lock import LockedError, locked
from sharnn.run import METRICS, SETTINGS

RUN_FILES = (SETTINGS, METRICS, BEST, LAST)
LOCK = ".lock"
PathLike = str | os.PathLike[str]


def require_output(path: PathLike, inputs: Iterable[PathLike]) -> Path:
    """Checks an output file before the work: it can be written, and nothing of value is lost.

    Args:
        path: the file to write, which may exist.
        inputs: files that are read, and other files to write.

    Returns:
        ``path`` as a `Path`.

    Raises:
        InputError: the file can't be written, is an input, or belongs to a run.
    """
    path = require_writable(path)
    for source in inputs:
        if is_same_file(path, source):
            raise InputError(f"the output would overwrite {source}: name another file")
    target = path.resolve()
    if holds_run(target.parent) and is_run_file(target):
        raise InputError(
            f"the output would overwrite {path}, a file of a training run: name another file"
        )
    return path


def is_run_file(path: Path) -> bool:
    """Returns True if a file has the name of one of a run's files, whether there is a run or not.

    Example:
        >>> is_run_file(Path("r/last.safetensors")), is_run_file(Path("r/page.html"))
        (True, False)
    """
    return any(is_same_file(path, path.with_name(name)) for name in (*RUN_FILES, LOCK))


def holds_run(folder: PathLike) -> bool:
    """Returns True if a folder has a checkpoint of a run."""
    return any(os.path.exists(Path(folder, name)) for name in (LAST, BEST))


def require_new_folder(folder: PathLike, inputs: Iterable[PathLike] = ()) -> None:
    """Checks the folder of a new run before the work: it is empty, or does not exist yet.

    Hidden files, whose names start with a dot, don't matter: a run overwrites none.

    Args:
        folder: the run folder.
        inputs: the files that the run reads.

    Raises:
        InputError: the folder has files, would have an input, or can't be written.
    """
    folder = require_folder(folder)
    if (folder / LAST).exists():
        raise InputError(f"{folder} already contains a run: resume it, or name another folder")
    for source in inputs:
        if Path(source).resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{source} is in the run folder {folder}: name another folder")
    names = sorted(os.listdir(folder)) if folder.exists() else []
    found = [name for name in names if not name.startswith(".")]
    if found:
        raise InputError(
            f"{folder} is not empty (it has {found[0]}): a new run needs a new or empty folder"
        )


def require_resumable(folder: PathLike, inputs: Iterable[PathLike]) -> None:
    """Checks that a run, which overwrites its files, does not overwrite the data it reads.

    Raises:
        InputError: an input is a file of the run.
    """
    for source in inputs:
        if any(is_same_file(source, Path(folder, name)) for name in RUN_FILES):
            raise InputError(f"{source} is a file of the run, which would overwrite it")


def create_folder(folder: Path) -> None:
    """Creates a folder and those above it, if needed.

    Raises:
        InputError: the folder can't be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"can't create {folder}: {error.strerror or error}") from error


@contextlib.contextmanager
def locked_run(folder: Path) -> Iterator[None]:
    """Context manager: reserves a run folder for this process, and removes leftovers in it.

    Reading the run needs no lock. The lock ends with its process, however that ends.

    Args:
        folder: the run folder, which must exist.

    Raises:
        InputError: another process trains this run.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / LOCK, wait=False))
        except LockedError as error:
            raise InputError(
                f"{folder} is in use by another training process: wait until it ends, or stop it"
            ) from error
        for name in RUN_FILES:
            remove_leftovers(folder / name, age=0)
        yield
