"""Marks for tests that need optional packages."""

import importlib.util

import pytest

HAS_TRANSFORMER = importlib.util.find_spec("x_transformers") is not None
needs_transformer = pytest.mark.skipif(
    not HAS_TRANSFORMER, reason="x-transformers is not installed: pip install x-transformers"
)
