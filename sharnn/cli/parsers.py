"""Command-line flags: a parser that says what is wrong in one line, and flags from dataclasses."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any, NoReturn

from sharnn.errors import InputError


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line."""

    def error(self, message: str) -> NoReturn:  # noqa: D102 (argparse's own)
        raise InputError(f"{message} (see {self.prog} --help)")


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, ""):
            return action.help
        return super()._get_help_string(action)


def positive(text: str) -> int:
    """A whole number of at least 1, as the type of an argument.

    Args:
        text: what was given.

    Returns:
        The number.

    Raises:
        argparse.ArgumentTypeError: it is none.

    Example:
        >>> positive("12")
        12
    """
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


_FIXED = ("vocab_size", "collapsed")  # bytes are always 256; collapsing comes after training


def add_fields(parser: argparse.ArgumentParser, title: str, preset: Any) -> None:
    """Adds one flag for each field of a dataclass; its docstring is the help.

    Args:
        parser: gets the flags.
        title: heads them in the help.
        preset: an instance, whose values the help shows. A flag that is not given sets nothing.
    """
    group = parser.add_argument_group(title)
    texts = _field_texts(type(preset))
    for field in dataclasses.fields(preset):
        if field.name in _FIXED:
            continue
        group.add_argument(
            "--" + field.name.replace("_", "-"),
            type=_field_type(str(field.type)),
            default=argparse.SUPPRESS,
            metavar="N,N|none" if "tuple" in str(field.type) else "VALUE",
            help=f"{texts[field.name]} ({_shown(getattr(preset, field.name))})",
        )


def _shown(value: Any) -> str:
    """A value as it would be given as a flag."""
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value).lower()


def _field_texts(settings: type) -> dict[str, str]:
    """What the docstring's Args section says of each field."""
    section = inspect.getdoc(settings).split("Args:\n")[1].split("\n\n")[0]  # type: ignore[union-attr]
    texts = {}
    for entry in re.split(r"\n(?=    \S)", section):
        names, _, text = entry.strip().partition(": ")
        for name in names.split(", "):
            sentence = " ".join(text.split()).split(". ")[0].rstrip(".")
            texts[name] = sentence.replace("`", "").replace("%", "%%")
    return texts


def _field_type(annotation: str) -> Callable[[str], Any]:
    """Turns a flag's text into a value of an annotated type; ``none`` is None or an empty tuple."""

    def parse(text: str) -> Any:
        if text.lower() == "none" and "tuple" in annotation:
            return ()
        if text.lower() == "none" and "None" in annotation:
            return None
        if "tuple" in annotation:
            return tuple(int(part) for part in text.split(",") if part.strip())
        kind = annotation.split(" ")[0]
        return {"int": int, "float": float, "str": str}[kind](text)

    parse.__name__ = annotation  # argparse says "invalid int | None value"
    return parse


def changes(options: argparse.Namespace, settings: type) -> dict[str, Any]:
    """The fields of a dataclass that were given as flags.

    Args:
        options: what was parsed.
        settings: the dataclass.

    Returns:
        Field names and their values.
    """
    names = {field.name for field in dataclasses.fields(settings)}
    return {name: value for name, value in vars(options).items() if name in names}
