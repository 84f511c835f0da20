"""The entry point: parses the command line, runs one command, reports errors in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch

import sharnn
from sharnn.cli import attention, data, files, generation, playground, scoring, training
from sharnn.cli.exit import FAILED, INTERRUPTED, INVALID, describe, fail
from sharnn.cli.output import abandon_output, any_character, flush_output
from sharnn.cli.parsers import Commands, Parser
from sharnn.device import is_out_of_memory
from sharnn.errors import InputError

OUT_OF_MEMORY = (
    "out of memory: use a smaller model, batch_size, segment_length or memory, or fewer lanes"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the words after ``sharnn``; None for those of the process.

    Returns:
        The exit code: 0 for success, 2 for invalid input, 1 for a run that failed, 130 for one
        that was interrupted.

    Example:
        >>> main(["eval", "nowhere", "--data", "x"])
        2
    """
    with any_character():
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    try:
        options = make_parser().parse_args(arguments)
        if getattr(options, "threads", None) is not None:
            torch.set_num_threads(options.threads)
        code: int = options.command(options)
        flush_output()
        return code
    except InputError as error:
        return fail(describe(error), INVALID)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except BrokenPipeError as error:
        abandon_output()  # its reader has exited
        # A run whose progress could not be shown: standard error may have a reader again.
        return fail(describe(error), FAILED) if hasattr(error, "__notes__") else FAILED
    except OSError as error:
        with contextlib.suppress(InputError, BrokenPipeError):
            flush_output()
        return fail(describe(error), FAILED, any_rank=True)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        saved = getattr(error, "__notes__", ())
        return fail("; ".join([OUT_OF_MEMORY, *saved]), FAILED, any_rank=True)


def make_parser() -> Parser:
    """Returns the parser of all commands."""
    parser = Parser(prog="sharnn", description="SHA-RNN: a byte-level language model.")
    parser.add_argument("--version", action="version", version=f"sharnn {sharnn.__version__}")
    commands = Commands(parser)
    for group in (data, training, scoring, generation, files, attention, playground):
        group.add_commands(commands)
    return parser
