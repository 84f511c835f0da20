"""Dataclasses of settings, whose help text is shared by docstring and command line."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sharnn.errors import InputError

T = TypeVar("T")


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


def from_mapping(settings: type[T], values: Mapping[str, Any]) -> T:
    """Returns an instance of a dataclass with the given field values, as read from JSON.

    Raises:
        InputError: ``values`` has a name that is not a field.
    """
    names = {field.name for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - names)
    if unknown:
        raise InputError(f"unknown setting {unknown[0]!r}")
    return settings(**values)
