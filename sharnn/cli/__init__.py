"""The command line. Imports the heart and every wing."""

from sharnn.cli.app import main

__all__ = ["main"]
