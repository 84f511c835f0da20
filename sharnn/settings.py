"""Dataclasses of settings, whose help text is shared by docstring and command line."""

from __future__ import annotations

import dataclasses
import reprlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sharnn.errors import InputError

T = TypeVar("T")
LARGEST_INTEGER = 2**63 - 1
LARGEST_NUMBER = 1e30  # larger ones overflow in float32 arithmetic


def setting(default: Any, help: str) -> Any:
    """Returns a dataclass field with a default and a help text.

    The docstring of the dataclass and the command line show the help text.

    Example:
        >>> @dataclasses.dataclass
        ... class Example:
        ...     size: int = setting(3, "number of items")
        >>> Example().size, help_texts(Example)
        (3, {'size': 'number of items'})
    """
    return dataclasses.field(default=default, metadata={"help": help})


def one_of(choices: Sequence[str]) -> str:
    """Returns the help text of a setting that is one of several words.

    Example:
        >>> one_of(["lamb", "adamw", "muon"])
        'lamb, adamw or muon'
    """
    return f"{', '.join(choices[:-1])} or {choices[-1]}"


def help_texts(settings: type) -> dict[str, str]:
    """Returns the help text of each field of a dataclass made with `setting`, by field name."""
    return {field.name: field.metadata["help"] for field in dataclasses.fields(settings)}


def document_fields(settings: type[T]) -> type[T]:
    """Class decorator: replaces the line ``{fields}`` of the docstring with an Args section.

    Example:
        >>> @document_fields
        ... @dataclasses.dataclass
        ... class Example:
        ...     '''A container.
        ...
        ...     {fields}
        ...     '''
        ...     size: int = setting(3, "number of items")
        >>> print(Example.__doc__.strip())
        A container.
        <BLANKLINE>
            Args:
                size: number of items.
    """
    if settings.__doc__ is None:  # python -OO
        return settings
    lines = ["Args:"]
    for name, text in help_texts(settings).items():
        lines += textwrap.wrap(
            f"{name}: {text}.", width=96, initial_indent=" " * 8, subsequent_indent=" " * 12
        )
    settings.__doc__ = settings.__doc__.replace("{fields}", "\n".join(lines))
    return settings


def check_types(settings: Any) -> None:
    """Checks that each field of a dataclass has a value of its annotated type.

    Numbers must be small enough to compute with. NaN passes, but fails any check of a range. Tuples
    are not checked.

    Raises:
        InputError: a value has another type, or is too large.

    Example:
        >>> @dataclasses.dataclass
        ... class Example:
        ...     size: int | None = None
        >>> check_types(Example(5)), check_types(Example("5"))
        Traceback (most recent call last):
        ...
        sharnn.errors.InputError: size must be an integer or None, got '5'
    """
    for field in dataclasses.fields(settings):
        kind, _, optional = str(field.type).partition(" | ")
        value: Any = getattr(settings, field.name)
        if kind not in _TYPES or (optional and value is None):
            continue
        what, types = _TYPES[kind]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            what += f" or {optional}" if optional else ""
            raise InputError(f"{field.name} must be {what}, got {reprlib.repr(value)}")
        largest = LARGEST_INTEGER if kind == "int" else LARGEST_NUMBER
        if kind in ("int", "float") and abs(value) > largest:
            raise InputError(f"{field.name} is too large: {reprlib.repr(value)}")


_TYPES: dict[str, tuple[str, Any]] = {
    "int": ("an integer", (int,)),
    "float": ("a number", (int, float)),
    "str": ("text", (str,)),
    "bool": ("true or false", (bool,)),
}


def from_mapping(settings: type[T], values: Mapping[str, Any]) -> T:
    """Returns an instance of a dataclass with the given field values, as read from JSON.

    Raises:
        InputError: ``values`` has a name that is not a field.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"settings must be a JSON object, got {reprlib.repr(values)}")
    names = {field.name for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - names)
    if unknown:
        raise InputError(f"unknown setting {unknown[0]!r}")
    return settings(**values)
