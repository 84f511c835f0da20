"""The command line."""

from sharnn.cli.app import main

__all__ = ["main"]
