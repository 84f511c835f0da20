"""What the book's notebooks share. Imports only core modules and `sharnn.web`."""

from sharnn.notebook.helpers import Size, repository_file, table, timed
from sharnn.notebook.knobs import Knobs

__all__ = ["Knobs", "Size", "repository_file", "table", "timed"]
