"""Argument parsing: one-line errors, options from dataclass fields, and shared parent parsers."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from sharnn.data import CORPORA, parse_split
from sharnn.errors import InputError
from sharnn.recipe import DEVICES
from sharnn.settings import help_texts

Command = Callable[[argparse.Namespace], int]  # returns the exit code
SOURCES = "|".join([*CORPORA, "FILE"])
NOT_OPTIONS = ("vocab_size", "collapsed")  # bytes have 256 values; collapse() is for after training


class Parser(argparse.ArgumentParser):
    """A parser that raises an `InputError` for invalid arguments.

    The word after an option is its value, even if it begins with a dash, unless it is itself one
    of the command's options.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: D102
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args(self._attach_values(words), namespace)

    def _attach_values(self, words: Sequence[str]) -> list[str]:
        """Returns the words with each value that begins with a dash attached to its option by =."""
        attached: list[str] = []
        for i, word in enumerate(words):
            if word == "--":
                return [*attached, *words[i:]]
            if (
                word.startswith("-")
                and attached
                and self._needs_value(attached[-1])
                and not self._find_options(word)
            ):
                attached[-1] += f"={word}"
            else:
                attached.append(word)
        return attached

    def _needs_value(self, word: str) -> bool:
        """Returns True if a word is an option, whose value is the next word."""
        options = self._find_options(word)
        return len(options) == 1 and "=" not in word and options[0].nargs is None

    def _find_options(self, word: str) -> list[argparse.Action]:
        """Returns the options that a word names, which may be abbreviated."""
        name = word.partition("=")[0]
        exact = [action for action in self._actions if name in action.option_strings]
        if exact or not name.startswith("--") or name == "--":
            return exact
        return [
            action
            for action in self._actions
            if any(option.startswith(name) for option in action.option_strings)
        ]

    def error(self, message: str) -> NoReturn:  # noqa: D102 (argparse's own)
        raise InputError(f"{message} (see {self.prog} --help)")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, except those without information (None, False and the empty string)."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, ""):
            return action.help
        return super()._get_help_string(action)


class Commands:
    """The subcommands of a parser.

    Args:
        parser: the main parser.
    """

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._subparsers = parser.add_subparsers(
            metavar="COMMAND", required=True, parser_class=Parser
        )

    def add(self, name: str, run: Command, text: str, *parents: Parser) -> Parser:
        """Adds a command and returns its parser.

        Args:
            name: the word after ``sharnn``.
            run: the function that executes the command.
            text: one line for the help.
            parents: parsers whose arguments the command shares; see `model_argument` and others.
        """
        parser = self._subparsers.add_parser(
            name, help=text, description=text, parents=parents, formatter_class=HelpFormatter
        )
        parser.set_defaults(command=run)
        return parser


def model_argument(
    help: str = "run folder, .safetensors file, or name of a shipped model",
) -> Parser:
    """Returns a parent parser with the argument MODEL."""
    parent = Parser(add_help=False)
    parent.add_argument("model", metavar="MODEL", help=help)
    return parent


def data_option(help: str, required: bool = False) -> Parser:
    """Returns a parent parser with the option ``--data``."""
    parent = Parser(add_help=False)
    parent.add_argument("--data", required=required, nargs="+", metavar=SOURCES, help=help)
    return parent


def split_option() -> Parser:
    """Returns a parent parser with the option ``--split``."""
    parent = Parser(add_help=False)
    parent.add_argument(
        "--split",
        type=parse_split,
        metavar="TRAIN,VALID,TEST",
        help="fractions or byte counts of the three parts (default: 0.9,0.05,0.05)",
    )
    return parent


def threads_option() -> Parser:
    """Returns a parent parser with the option ``--threads``."""
    parent = Parser(add_help=False)
    parent.add_argument(
        "--threads", type=threads, help="number of CPU threads (default: torch's choice)"
    )
    return parent


def device_option() -> Parser:
    """Returns a parent parser with the option ``--device``."""
    parent = Parser(add_help=False)
    parent.add_argument("--device", default="auto", choices=DEVICES, help="device to run on")
    return parent


def memory_option() -> Parser:
    """Returns a parent parser with the option ``--memory``."""
    parent = Parser(add_help=False)
    parent.add_argument(
        "--memory",
        type=positive,
        help="maximum number of rows (positions) a query can attend to (default: the model's)",
    )
    return parent


def quiet_option(help: str = "hide the progress bar") -> Parser:
    """Returns a parent parser with the option ``--quiet``."""
    parent = Parser(add_help=False)
    parent.add_argument("--quiet", action="store_true", help=help)
    return parent


def positive(text: str) -> int:
    """Parses an argument that must be an integer from 1 to 2**31 - 1.

    Raises:
        argparse.ArgumentTypeError: ``text`` is not such a number.

    Example:
        >>> positive("12")
        12
    """
    return _to_integer(text, 2**31 - 1)


def threads(text: str) -> int:
    """Parses a number of CPU threads, from 1 to 1024.

    Raises:
        argparse.ArgumentTypeError: ``text`` is not such a number.
    """
    return _to_integer(text, 1024)


def at_most(largest: int) -> Callable[[str], int]:
    """Returns a function that parses an argument that must be an integer from 1 to ``largest``.

    Example:
        >>> at_most(20)("12")
        12
    """

    def parse(text: str) -> int:
        return _to_integer(text, largest)

    return parse


def _to_integer(text: str, largest: int) -> int:
    # The length is checked first: Python refuses to convert thousands of digits.
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text[:40]!r}")
    if int(text) > largest:
        raise argparse.ArgumentTypeError(f"must be at most {largest}, got {text}")
    return int(text)


def add_fields(parser: argparse.ArgumentParser, title: str, preset: Any) -> None:
    """Adds one option per field of a dataclass made with `sharnn.settings.setting`.

    Args:
        parser: the parser to extend.
        title: heading of the options in the help.
        preset: an instance, whose values are shown in the help. An option that is not given sets
            nothing; see `given_fields`.
    """
    group = parser.add_argument_group(title)
    texts = help_texts(type(preset))
    for field in dataclasses.fields(preset):
        if field.name in NOT_OPTIONS:
            continue
        text = texts[field.name].replace("`", "").replace("%", "%%")
        group.add_argument(
            "--" + field.name.replace("_", "-"),
            type=_field_type(str(field.type)),
            default=argparse.SUPPRESS,
            metavar="N,N|none" if "tuple" in str(field.type) else "VALUE",
            help=f"{text} ({_as_option(getattr(preset, field.name))})",
        )


def given_fields(options: argparse.Namespace, settings: type) -> dict[str, Any]:
    """Returns the fields of a dataclass that were given as options, by name."""
    names = {field.name for field in dataclasses.fields(settings)}
    return {name: value for name, value in vars(options).items() if name in names}


def _as_option(value: Any) -> str:
    """Returns a value as it is written on the command line."""
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value).lower()


def _to_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


_PARSERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": _to_bool,
}
_TYPE_NAMES = {
    "int": "integer",
    "float": "number",
    "str": "text",
    "bool": "true or false",
    "tuple": "list of numbers",
}


def _field_type(annotation: str) -> Callable[[str], Any]:
    """Returns a function that parses an option's text as a value of an annotated type.

    The word ``none`` becomes None or an empty tuple, if the type allows it.
    """

    def parse(text: str) -> Any:
        if text.lower() == "none" and "tuple" in annotation:
            return ()
        if text.lower() == "none" and "None" in annotation:
            return None
        if "tuple" in annotation:
            return tuple(int(part) for part in text.split(",") if part.strip())
        kind = annotation.split(" ")[0]
        return _PARSERS[kind](text)

    # argparse prints "invalid number or none value".
    names = {
        "int": "integer",
        "float": "number",
        "str": "text",
        "bool": "true or false",
        "tuple": "list of numbers",
    }
    name = names[annotation.split(" ")[0].split("[")[0]]
    parse.__name__ = f"{name} or none" if "None" in annotation or "tuple" in annotation else name
    return parse
