"""Errors a user can cause, told in one line."""


class InputError(ValueError):
    """Something the user gave can't be used; the message says what is wrong and what to do.

    The command line prints the message as one line and exits with a non-zero code.

    Example:
        >>> raise InputError("dim must be positive, got -1")
        Traceback (most recent call last):
        ...
        sharnn.errors.InputError: dim must be positive, got -1
    """
