"""What the notebooks share: the size switch, tables, timing, knobs, files of the repository."""

import time

import ipywidgets
import matplotlib.pyplot as plt
import pooch
import pytest
import torch

from sharnn import InputError
from sharnn.notebook import Knobs, Size, repository_file, table, timed
from sharnn.plots import panels


def test_the_size_follows_the_environment(monkeypatch):
    monkeypatch.setenv("SHARNN_SIZE", "large")
    assert Size()(1, 2) == 2
    assert repr(Size()).startswith("large setting on ")
    monkeypatch.setenv("SHARNN_SIZE", "huge")
    with pytest.raises(InputError, match="small or large"):
        Size()


def test_without_it_the_machine_decides(monkeypatch):
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


def test_the_least_time_counts():
    pauses = iter([0.05, 0.0, 0.05])

    def work():
        pause = next(pauses)
        time.sleep(pause)
        return pause

    value, seconds = timed(work, repeats=3)
    assert value == 0.05
    assert seconds < 0.04


@pytest.fixture
def drawn(monkeypatch):
    """The values that a figure was drawn with; what is displayed stays silent."""
    monkeypatch.setattr("IPython.display.display", lambda figure: None)
    return []


def test_knobs_carry_a_widget_and_a_picture(drawn):
    def draw(n, kind):
        drawn.append((n, kind))
        return panels()[0].figure

    knobs = Knobs(draw, n=ipywidgets.IntSlider(3, 1, 5), kind=["a", "b"])
    bundle = knobs._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG")
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert set(drawn) == {(3, "a")}, "the picture is that of the first values"
    assert not plt.get_fignums(), "figures that are shown are closed"


def test_a_file_of_the_clone_is_found_there():
    assert repository_file("tests/reference/golden_lamb.npz", "").stat().st_size > 1000


def test_elsewhere_it_is_downloaded_from_the_repository(monkeypatch, tmp_path):
    asked = []

    def retrieve(url, sha256, path):
        asked.append((url, sha256))
        return str(tmp_path)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert repository_file("tests/nothing.npz", "abc") == tmp_path
    assert asked == [
        ("https://raw.githubusercontent.com/sharnn/sharnn/main/tests/nothing.npz", "abc")
    ]


def test_a_download_that_fails_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: 1 / 0)
    with pytest.raises(InputError, match=r"nothing\.npz is not here and could not be"):
        repository_file("tests/nothing.npz", "abc")
