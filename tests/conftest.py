"""What tests share: a small corpus, and a fixed start of all random numbers."""

import os

os.environ.setdefault("MPLBACKEND", "agg")

import pytest
import torch

from sharnn import Corpus, load_corpus

# A program that torchrun starts, not a module of tests.
collect_ignore = ["in_ranks.py"]

torch.set_num_threads(1)  # for models this small the second thread only waits


@pytest.fixture(autouse=True)
def _same_start():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path_factory, monkeypatch):
    """No test sees, or leaves, a corpus in the user's folders."""
    monkeypatch.setenv("SHARNN_DATA", str(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return load_corpus("sample", sample_size=20_000)
