"""Exit codes and error messages of the programs in this folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import sharnn
from sharnn.cli.exit import FAILED, INTERRUPTED, INVALID, describe
from sharnn.cli.output import abandon_output, flush_output


def exit_code(
    name: str,
    program: Callable[[list[str]], int],
    given: Sequence[str] | None = None,
    interrupted: str = "interrupted",
) -> int:
    """Runs a program and returns its exit code.

    Args:
        name: the program's name, which the line of an error starts with.
        program: takes the words after its name and returns the exit code if nothing fails.
        given: these words; None for those of the command line.
        interrupted: what is printed after Ctrl-C.

    Returns:
        The program's own exit code, 1 if nobody reads the output, 2 after bad input, or 130 after
        Ctrl-C.

    Example:
        >>> exit_code("ready", lambda words: len(words), [])
        0
    """
    try:
        code = program(sys.argv[1:] if given is None else list(given))
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
