"""The command line. Imports core modules and every other subpackage."""

from sharnn.cli.app import main

__all__ = ["main"]
