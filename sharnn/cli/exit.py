"""Exit codes, and the line that reports a failure."""

from __future__ import annotations

import sys

from sharnn.distributed import environment_rank

FAILED, INVALID, INTERRUPTED = 1, 2, 130


def fail(message: str, code: int, any_rank: bool = False) -> int:
    """Prints a message on standard error as one line, and returns the exit code.

    With several processes only rank 0 prints. Set ``any_rank`` for errors that may occur in only
    one process.
    """
    rank = environment_rank()
    if rank == 0 or any_rank:
        prefix = f"process {rank}: " if rank else ""
        print("sharnn: " + prefix + " ".join(message.split()), file=sys.stderr)
    return code
