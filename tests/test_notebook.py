"""The helpers of the notebooks: size switch, tables, timing, repository files."""

import itertools
from types import SimpleNamespace

import pooch
import pytest
import torch

from sharnn import InputError
from sharnn.notebook import Size, repository_file, table, timed


def test_the_size_follows_the_environment(monkeypatch):
    monkeypatch.setenv("SHARNN_SIZE", "large")
    assert Size()(1, 2) == 2
    assert repr(Size()).startswith("large setting on ")
    monkeypatch.setenv("SHARNN_SIZE", "huge")
    with pytest.raises(InputError, match="small or large"):
        Size()


def test_without_the_variable_the_hardware_decides(monkeypatch):
    monkeypatch.delenv("SHARNN_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    size = Size()
    assert (size(1, 2), size.device.type) == (1, "cpu")


def test_a_table_is_markdown():
    shown = table(["", "bits", "speed"], [["a", 1.5, "+2 %"], ["`b`", 2, ""]])
    assert shown.data == "|  | bits | speed |\n|---|---:|---:|\n| a | 1.5 | +2 % |\n| `b` | 2 |  |"
    mixed = table(["a", "b"], [["**1.5**", "3 of 4"], ["1e-05 ± 0.1", "1.0, 2.0"]])
    assert "|---:|---|" in mixed.data, "bold and errors are numbers, words and lists are not"
    assert table(["a", "b"], []).data == "| a | b |\n|---|---|"


def test_the_minimum_time_is_returned(monkeypatch):
    clock = iter([0.0, 5.0, 10.0, 12.0, 20.0, 24.0])  # the start and the end of each call
    fake = SimpleNamespace(perf_counter=clock.__next__)
    monkeypatch.setattr("sharnn.notebook.helpers.time", fake)
    calls = itertools.count(1)
    assert timed(lambda: next(calls), repeats=3) == (3, 2.0)


def test_a_file_is_found_in_the_clone():
    assert repository_file("tests/reference/golden_lamb.npz", "").stat().st_size > 1000


def test_without_a_clone_it_is_downloaded_from_the_repository(monkeypatch, tmp_path):
    requests = []

    def retrieve(url, sha256, path):
        requests.append((url, sha256))
        return str(tmp_path)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert repository_file("tests/nothing.npz", "abc") == tmp_path
    assert requests == [
        ("https://raw.githubusercontent.com/sharnn/sharnn/main/tests/nothing.npz", "abc")
    ]


def test_a_failed_download_is_reported_in_one_line(monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: 1 / 0)
    with pytest.raises(InputError, match=r"nothing\.npz was not found and could not be"):
        repository_file("tests/nothing.npz", "abc")
