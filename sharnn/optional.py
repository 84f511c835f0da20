"""Packages that only a part of the library needs: imports one, or reports how to install it."""

from __future__ import annotations

import importlib
import textwrap
from typing import Any

from sharnn.errors import InputError


def import_optional(module: str, purpose: str, install: str | None = None) -> Any:
    """Imports and returns a module of an optional package.

    Args:
        module: the module, such as ``"onnx.helper"``.
        purpose: the use of the package, for the message.
        install: names of the packages to install; None for the module's own package.

    Raises:
        InputError: the package is not installed, or is installed but can't be imported.

    Example:
        >>> import_optional("json", "examples").dumps([1])
        '[1]'
        >>> import_optional("nothing", "this")
        Traceback (most recent call last):
        ...
        sharnn.errors.InputError: nothing, needed for this, is not installed: pip install nothing
    """
    root = module.partition(".")[0]
    try:
        importlib.import_module(root)  # first: only then is error.name the root if it is missing
        return importlib.import_module(module)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == root:
            raise InputError(
                f"{root}, needed for {purpose}, is not installed: pip install {install or root}"
            ) from error
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise InputError(
            f"{root} is installed but broken ({reason}): pip install --force-reinstall {root}"
        ) from error
