"""Exit codes, and the line that reports a failure."""

from __future__ import annotations

from sharnn.cli.output import abandon_errors
from sharnn.distributed import environment_rank
from sharnn.io.console import notify

FAILED, INVALID, INTERRUPTED = 1, 2, 130


def fail(message: str, code: int, any_rank: bool = False) -> int:
    """Prints a message on standard error as one line, and returns the exit code.

    With several processes only rank 0 prints. Set ``any_rank`` for errors that may occur in only
    one process.
    """
    rank = environment_rank()
    prefix = f"process {rank}: " if rank else ""
    if (rank == 0 or any_rank) and not notify(prefix + message):
        abandon_errors()
    return code


def describe(error: BaseException) -> str:
    """Returns the message of an exception, with its notes, such as where a run is saved."""
    return "; ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", ())])
