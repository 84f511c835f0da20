"""How the programs of this folder end: with an exit code, and an error as one line."""

from __future__ import annotations

import sys
from collections.abc import Callable

import sharnn
from sharnn.cli.exit import FAILED, INTERRUPTED, INVALID, describe
from sharnn.cli.output import abandon_output, flush_output


def exit_code(name: str, program: Callable[[], int], interrupted: str = "interrupted") -> int:
    """Runs a program and returns its exit code.

    Args:
        name: the program's name, which the line of an error starts with.
        program: returns the exit code if nothing fails.
        interrupted: what is printed after Ctrl-C.

    Returns:
        The program's own exit code, 1 if nobody reads the output, 2 after bad input, or 130 after
        Ctrl-C.

    Example:
        >>> exit_code("ready", lambda: 0)
        0
    """
    try:
        code = program()
        flush_output()
        return code
    except sharnn.InputError as error:
        print(f"{name}: {describe(error)}", file=sys.stderr)
        return INVALID
    except KeyboardInterrupt:
        print(f"{name}: {interrupted}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the output's reader has exited, as in `... | head`
        abandon_output()
        return FAILED
