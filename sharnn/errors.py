"""Errors caused by what a user gave; each message is one line."""

from __future__ import annotations

from collections.abc import Iterable


class InputError(ValueError):
    """Invalid input; the message names the problem and the remedy.

    The command line prints the message as one line and exits with a non-zero code.

    Example:
        >>> raise InputError("dim must be positive, got -1")
        Traceback (most recent call last):
        ...
        sharnn.errors.InputError: dim must be positive, got -1
    """


class DamagedModelError(InputError):
    """The weights or the outputs of a model contain NaN or Inf."""


def require_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raises an error unless a setting has one of the allowed values.

    Raises:
        InputError: ``value`` is not one of ``choices``.

    Example:
        >>> require_choice("storage", "int4", ["float32", "int8"])
        Traceback (most recent call last):
        ...
        sharnn.errors.InputError: storage must be one of float32, int8, got 'int4'
    """
    choices = list(choices)
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
