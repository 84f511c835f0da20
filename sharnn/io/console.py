"""Standard error: messages of one line, and the progress of long tasks."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType
from typing import Any

LINE_SECONDS = 30.0  # between two lines of progress in a log file
BAR = "{percentage:3.0f}% {bar:20} {elapsed}<{remaining}{postfix}"
LINE = "{percentage:3.0f}% {elapsed}<{remaining}{postfix}"


def notify(message: str) -> bool:
    """Prints a message on standard error as one line.

    Returns:
        False if it could not be printed, because standard error is closed, its reader has exited,
        or its disk is full.
    """
    if sys.stderr is None:
        return False
    try:
        print("sharnn: " + " ".join(message.split()), file=sys.stderr, flush=True)
    except (OSError, ValueError):  # ValueError: the stream is closed
        return False
    return True


class Progress:
    """The progress of a long task on standard error: a bar on a terminal or in a notebook.

    Elsewhere, such as in a log file, it is one line every 30 seconds and one at the end.

    Args:
        total: value at the end.
        initial: value at the start.
        rate_unit: also show the rate, in this unit per second; None to show none.

    Example:
        >>> with Progress(total=100) as progress:
        ...     progress.update(50)
    """

    def __init__(self, total: float, initial: float = 0.0, rate_unit: str | None = None) -> None:
        from tqdm import tqdm

        self._value, self._text = initial, ""
        self._bar: tqdm[Any] | None = None
        self._format: dict[str, Any] = {"total": total, "initial": initial}
        rate = "" if rate_unit is None else ", {rate_fmt}"
        if rate_unit is not None:
            self._format |= {"unit": rate_unit, "unit_scale": True}
        if shows_bars(sys.stderr):
            self._bar = tqdm(
                **self._format, file=sys.stderr, bar_format=BAR + rate, mininterval=0.5
            )
        self._format["bar_format"] = LINE + rate
        self._start = self._printed = time.monotonic()

    def update(self, value: float, text: str | None = None) -> None:
        """Shows a new value.

        Args:
            value: the value reached.
            text: a new text behind it; None to keep the old one.

        Raises:
            OSError: standard error can't be written.
        """
        self._value = value
        if text is not None:
            self._text = text
        if self._bar is not None:
            if text is not None:
                self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(value - self._bar.n)
        elif time.monotonic() - self._printed >= LINE_SECONDS:
            self._print_line()

    def _print_line(self) -> None:
        from tqdm import tqdm

        self._printed = time.monotonic()
        elapsed = self._printed - self._start
        postfix = self._text or None
        line = tqdm.format_meter(self._value, elapsed=elapsed, postfix=postfix, **self._format)
        if sys.stderr is not None:
            print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The task is over: nothing is lost if its last line can't be printed.
        with contextlib.suppress(OSError, ValueError):
            if self._bar is not None:
                self._bar.close()
            else:
                self._print_line()


def shows_bars(stream: Any) -> bool:
    """Returns True if a carriage return moves back to the start of the line in a stream."""
    return type(stream).__module__.startswith("ipykernel") or is_terminal(stream)


def is_terminal(stream: Any) -> bool:
    """Returns True if a stream is open and shown on a terminal."""
    try:
        return stream is not None and bool(stream.isatty())
    except ValueError:
        return False
