"""Fixtures for all tests: a fixed random seed, an empty data folder and a small corpus."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start

import pytest
import torch

from sharnn import Corpus, load_corpus

# A program for torchrun, not a test module.
collect_ignore = ["distributed_program.py"]

torch.set_num_threads(1)  # a second thread doesn't help with models this small


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _data_folder(data_folders, monkeypatch):
    """Sets a new data folder, away from the user's corpora. Tests that write to it create it."""
    monkeypatch.setenv("SHARNN_DATA", str(next(data_folders)))


@pytest.fixture(scope="session")
def data_folders(tmp_path_factory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("data")
    return (root / str(number) for number in itertools.count())


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return load_corpus("sample", sample_size=20_000)
