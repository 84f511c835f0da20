"""Locks between processes, which end with the process that holds them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

_held: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())


class LockedError(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Context manager: holds a lock that only one process can hold.

    A block within a block that holds the same lock has it too. Nothing is locked if the package
    filelock is missing or the file system has no locks.

    Args:
        path: an empty file for the lock, which is created if needed and stays.
        wait: wait until the lock is free.

    Raises:
        LockedError: another process holds the lock, and ``wait`` is False.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder, "x"), wait=False):
        ...     with locked(Path(folder, "x"), wait=False):
        ...         "no other process gets here"
        'no other process gets here'
    """
    path = path.resolve()
    with contextlib.ExitStack() as stack:
        if path not in _held.get():
            _acquire(path, wait, stack)
            token = _held.set(_held.get() | {path})
            stack.callback(_held.reset, token)
        yield


def _acquire(path: Path, wait: bool, stack: contextlib.ExitStack) -> None:
    """Acquires a lock that the stack releases."""
    try:
        from filelock import FileLock, Timeout
    except ImportError:
        return
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise LockedError(str(path)) from error
    except (OSError, NotImplementedError):
        return  # a read-only folder, or a file system without locks
    stack.callback(lock.release)
