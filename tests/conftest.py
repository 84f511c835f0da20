"""Fixtures for all tests: a fixed random seed, an empty data folder and a small corpus."""

import itertools
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
# Threads that wait for each other leave the core to other tests.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from sharnn import Corpus, InputError, Playground, load_corpus
from sharnn.exact import learning, products, ring
from small import small_model

# A program for torchrun, not a test module.
collect_ignore = ["distributed_program.py"]

# The suite always draws the same examples, so that it can't fail by chance. To search for failures:
# HYPOTHESIS_PROFILE=search pytest --timeout=0 tests/test_compression.py
# Properties have no settings of their own, so that a profile applies to all of them.
PROPERTIES = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("suite", PROPERTIES, derandomize=True, max_examples=30)
settings.register_profile("search", PROPERTIES, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

CODER_IS_MISSING = find_spec("constriction") is None
torch.set_num_threads(1)  # a second thread doesn't help with models this small


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a command of an earlier test may have changed it


@pytest.fixture(autouse=True)
def _data_folder(data_folders, monkeypatch):
    """Sets a new data folder, away from the user's corpora. Tests that write to it create it.

    No test downloads real text to it from the package index.
    """
    monkeypatch.setenv("SHARNN_DATA", str(next(data_folders)))

    def fetch(file, folder):
        raise InputError("no package index")

    monkeypatch.setattr("sharnn.corpora.enwiki2016._fetch", fetch)


@pytest.fixture(scope="module")
def browser():
    """A browser for the tests of a module."""
    from browser import open_browser  # Playwright may be missing

    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def model():
    """The model in the playground. Tests of other pages have their own."""
    model = small_model(shifted_keys=True, lstm_skip=0.5)
    model.collapse()
    return model


@pytest.fixture
def path(model, tmp_path):
    """The playground in a file. Tests of other pages have their own."""
    from model_pages import TEXT  # Playwright may be missing

    return Playground(model, "small", TEXT).save(tmp_path / "page.html")


@pytest.fixture
def page(browser, path):
    """The page at the module's path, open in the browser."""
    from model_pages import open_page

    with open_page(browser, path) as page:
        yield page


@pytest.fixture(scope="module")
def stored(model, tmp_path_factory):
    """The module's model with the weights that a page with it has."""
    from model_pages import as_stored

    return as_stored(model, tmp_path_factory.mktemp("stored") / "m.safetensors")


@pytest.hookimpl(wrapper=True)
def skip_without_a_coder():
    """Skips a test that reads coded archives of format 1, where there is no coder for them."""
    try:
        return (yield)
    except (InputError, AssertionError) as error:
        if CODER_IS_MISSING and "constriction, needed" in str(error):
            pytest.skip("needs constriction")
        raise


pytest_runtest_setup = pytest_runtest_call = skip_without_a_coder


@pytest.fixture(scope="session")
def data_folders(tmp_path_factory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("data")
    return (root / str(number) for number in itertools.count())


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return load_corpus("sample", sample_size=20_000)


@pytest.fixture
def float32_products(monkeypatch):
    """As on a machine whose products of 8-bit integers are not exact."""
    for module in (products, ring, learning):
        monkeypatch.setattr(module, "storage", lambda: np.float32)
