"""Standard output: closed, full, in a notebook, or with an encoding that lacks some characters."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from sharnn.errors import InputError


def require_output_stream(binary: bool = False) -> None:
    """Checks, before the work, that a result can be printed.

    Args:
        binary: the result is not text.

    Raises:
        InputError: standard output is closed, or takes only text, as in a notebook.
    """
    if sys.stdout is None:
        raise InputError("can't write to standard output: it is closed")
    if binary and not hasattr(sys.stdout, "buffer"):
        raise InputError("standard output takes only text here: name a file as the output")


def write_output(content: bytes) -> None:
    """Writes bytes to standard output, at once.

    A stream of text, as in a notebook, gets them as UTF-8.

    Raises:
        BrokenPipeError: its reader has exited.
        InputError: it can't be written, for example because it is closed or the disk is full.
    """
    require_output_stream()
    binary = getattr(sys.stdout, "buffer", None)
    with _reported_errors():
        if binary is None:
            sys.stdout.write(content.decode(errors="backslashreplace"))
        else:
            sys.stdout.flush()  # the text before
            binary.write(content)
        sys.stdout.flush()


def flush_output() -> None:
    """Writes what was printed to standard output, unless it is closed.

    Raises:
        BrokenPipeError: its reader has exited.
        InputError: it can't be written, for example because the disk is full.
    """
    if sys.stdout is not None:
        with _reported_errors():
            sys.stdout.flush()


@contextlib.contextmanager
def _reported_errors() -> Iterator[None]:
    """Context manager: reports that standard output can't be written, except to a closed pipe."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon_output()
        raise InputError(f"can't write to standard output: {error.strerror or error}") from error


@contextlib.contextmanager
def any_character() -> Iterator[None]:
    """Context manager: prints characters that an output's encoding lacks as escapes.

    File names have such characters on Windows, or if they are not UTF-8.
    """
    with contextlib.ExitStack() as stack:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stack.callback(_set_errors, stream, stream.errors)
                _set_errors(stream, "backslashreplace")
        yield


def _set_errors(stream: io.TextIOWrapper, errors: str | None) -> None:
    # What is left to print may fail, for example because the disk is full.
    with contextlib.suppress(OSError, ValueError):
        stream.reconfigure(errors=errors)


def abandon_output() -> None:
    """Discards what is left to print, which Python would otherwise report again when it exits."""
    _abandon(sys.stdout)


def abandon_errors() -> None:
    """Discards what is left to print on standard error; see `abandon_output`."""
    _abandon(sys.stderr)


def _abandon(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
