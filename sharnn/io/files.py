"""Files: outputs that appear complete or not at all, and inputs that end."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sharnn.errors import InputError

LEFTOVER_AGE = 24 * 3600.0  # seconds: a partial file that nobody has written to for a day
NAME_LENGTH = 50  # characters of a file's name in the name of its partial file


def partial_path(path: Path) -> Path:
    """Returns a new path next to a file, at which its content is written before it is renamed.

    Each call returns another path, so that processes that write the same file don't write to each
    other's partial files.
    """
    return path.with_name(f".{path.name[:NAME_LENGTH]}.{secrets.token_hex(4)}.partial")


def remove_leftovers(path: Path, age: float = LEFTOVER_AGE) -> None:
    """Removes the partial files of a file that killed processes left behind.

    Args:
        path: the file that they were written for.
        age: minimum number of seconds since the last change. With 0 the caller must ensure that no
            other process is writing the file.
    """
    pattern = re.compile(re.escape(f".{path.name[:NAME_LENGTH]}.") + r"[0-9a-f]{8}\.partial")
    newest = time.time() - age
    with contextlib.suppress(OSError):  # a partial file only wastes disk space
        with os.scandir(path.parent) as entries:
            found = [entry for entry in entries if pattern.fullmatch(entry.name)]
        for entry in found:
            if age == 0 or entry.stat().st_mtime < newest:
                os.unlink(entry.path)


@contextlib.contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Context manager: opens a new file that replaces ``path`` if the block succeeds.

    A reader sees either the old content or the new, never a partial file.

    Raises:
        InputError: the file can't be written.
    """
    partial = partial_path(path)
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"can't write {path}: {error.strerror or error}") from error
        raise
    remove_leftovers(path)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees either the old content or the new, never a partial file.

    Args:
        path: the file; its folder must exist.
        content: the whole content.

    Raises:
        InputError: the file can't be written.
    """
    with open_atomically(path) as file:
        file.write(content)


def require_writable(path: str | os.PathLike[str]) -> Path:
    """Checks that an output file can be created, before the work that produces it.

    Args:
        path: a file, which may already exist.

    Returns:
        ``path`` as a `Path`.

    Raises:
        InputError: the file can't be created.
    """
    path = Path(path)
    with _reporting(f"can't write {path}"):
        if not path.absolute().parent.is_dir():
            raise InputError(f"can't write {path}: its folder does not exist")
        if path.exists():
            if not path.is_file():
                raise InputError(f"can't write {path}: it is not a regular file")
            if not os.access(path, os.W_OK):
                raise InputError(f"can't write {path}: it is write-protected")
        _create_and_remove(partial_path(path))
    return path


def require_folder(folder: str | os.PathLike[str]) -> Path:
    """Checks that files can be created in a folder, or that the folder can be created.

    Args:
        folder: a folder, which may already exist.

    Returns:
        ``folder`` as a `Path`.

    Raises:
        InputError: it is not a folder, or can't be written.
    """
    folder = Path(folder)
    with _reporting(f"can't write to {folder}"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.stat(folder)  # raises other errors for an impossible name
        existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
        if not existing.is_dir():
            raise InputError(f"can't use {folder}: {existing} is not a folder")
        _create_and_remove(partial_path(existing / "folder"))
    return folder


@contextlib.contextmanager
def _reporting(failure: str) -> Iterator[None]:
    """Context manager: raises errors of the operating system as an `InputError` with a reason."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{failure}: {reason}") from error


def _create_and_remove(path: Path) -> None:
    """Creates an empty file and removes it; raises an error if that fails."""
    with open(path, "xb"):
        pass
    path.unlink()


def is_same_file(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Returns True if two paths name one file: through links, or by the path it will have.

    Example:
        >>> is_same_file("a/../nowhere", "./nowhere")
        True
    """
    try:
        if os.path.samefile(first, second):
            return True
    except (OSError, ValueError):
        pass  # one of them does not exist
    return os.path.realpath(first) == os.path.realpath(second)


def read_start(path: str | os.PathLike[str], size: int) -> bytes:
    """Returns the first bytes of a regular file, all of them if there are fewer than ``size``.

    Raises:
        InputError: the file can't be read, or is not a regular file.
    """
    with _reporting(f"can't read {path}"), _open_regular(path) as file:
        return file.read(size)


def read_file(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """Returns the content of a regular file.

    Pipes and devices are refused, because reading them may never end.

    Args:
        path: the file.
        limit: maximum number of bytes; None for any number.

    Raises:
        InputError: the file can't be read, is not a regular file, or is longer than ``limit``.

    Example:
        >>> read_file("/nowhere")
        Traceback (most recent call last):
        ...
        sharnn.errors.InputError: can't read /nowhere: No such file or directory
    """
    with _reporting(f"can't read {path}"), _open_regular(path) as file:
        content = file.read() if limit is None else file.read(limit + 1)
    if limit is not None and len(content) > limit:
        raise InputError(f"can't read {path}: it has more than {limit:,} bytes")
    return content


def _open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a file to read it; raises an error if it is a pipe or a device."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"can't read {path}: it is not a regular file")
    return open(path, "rb")
