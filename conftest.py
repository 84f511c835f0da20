"""Leaves out compression if its coder, constriction, has no build for this machine."""

from importlib.util import find_spec

needs_constriction = ["sharnn/compression/codec.py", "sharnn/compression/coder.py"]
needs_constriction += ["tests/test_compression.py"]
collect_ignore = [] if find_spec("constriction") else needs_constriction
