"""``python -m sharnn`` is the command ``sharnn``."""

import sys

from sharnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
