"""Figures show the numbers they are given."""

import os
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from sharnn import InputError
from sharnn.plots import LiveCurve, attention_map, loss_curve, visible_byte


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


RECORDS = [
    {"step": 2, "bytes": 1000, "train_bits_per_byte": 6.0},
    {"step": 2, "valid_bits_per_byte": 5.5},
    {"step": 4, "bytes": 3000, "train_bits_per_byte": 4.0},
]


@pytest.mark.parametrize("backend", ["nonsense", "module://nonsense"])
def test_an_invalid_backend_is_reported(backend):
    script = (
        "from sharnn import InputError\n"
        "from sharnn.plots import panels\n"
        "try: panels()\n"
        "except InputError as error: print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "MPLBACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    expected = f"matplotlib can't use MPLBACKEND={backend}: unset it, or set it to agg\n"
    assert result.stdout == expected


def test_the_x_axis_of_the_curve_is_the_bytes_read():
    axes = loss_curve(RECORDS)
    train, valid = axes.get_lines()
    assert train.get_xydata().tolist() == [[1, 6], [4, 4]]
    assert valid.get_xydata().tolist() == [[1, 5.5]]
    assert axes.get_ylabel() == "bits per byte"
    assert "thousands" in axes.get_xlabel()


def test_a_curve_without_metrics_is_empty():
    assert loss_curve([]).get_lines() == []


def test_the_live_curve_redraws_one_figure(monkeypatch):
    shown = []

    class Handle:
        def update(self, figure):
            shown.append(("update", figure))

    def display(figure, display_id):
        shown.append(("new", figure))
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    before = plt.get_fignums()
    curve = LiveCurve(every=1)
    for record in RECORDS:
        curve(record)
    assert [kind for kind, _ in shown] == ["new", "update", "update"]
    assert plt.get_fignums() == before, "displayed figures are closed"


def test_the_map_sums_neighbouring_keys():
    weights = torch.softmax(torch.randn(3, 10), dim=-1)
    axes = attention_map(weights, b"a \n", columns=5)
    image = axes.get_images()[0]
    expected = weights.reshape(3, 5, 2).sum(-1).clamp(min=0.02)
    np.testing.assert_allclose(image.get_array(), expected, atol=1e-6)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "·", "↵"]
    left, right, *_ = image.get_extent()
    assert (left, right) == (-7, 3), "the memory is before 0, the segment after it"


def test_a_map_whose_text_does_not_match():
    with pytest.raises(InputError, match=r"shape \(2, keys\) for 2 bytes, got \(3, 4\)"):
        attention_map(torch.ones(3, 4), b"ab")


def test_every_byte_has_one_visible_character():
    characters = [visible_byte(byte) for byte in range(256)]
    assert all(len(character) == 1 and character.isprintable() for character in characters)
