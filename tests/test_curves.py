"""Learning curves: from when on one model is ahead, in words and in a figure, for any outcome."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from sharnn import InputError
from sharnn.analysis.curves import SCALES, Lead, curves_figure, describe_lead, find_lead, thin

NAMES = ("the model with a head", "the one without")


def curve(x, bits):
    return {"bytes_read": x, "cpu_seconds": x, "bits": bits}


def lead(first, second):
    return find_lead(curve(*first), curve(*second), "bytes_read", "bits")


def test_the_start_of_a_lead_is_the_last_crossing():
    zigzag = ([0, 10, 20, 30, 40], [5.0, 3.0, 4.0, 2.0, 1.0])
    flat = ([0, 40], [3.5, 3.5])
    found = lead(zigzag, flat)
    assert found == Lead(start=pytest.approx(22.5), from_the_start=False, end=40, margin=2.5)
    assert lead(flat, zigzag).start is None


def test_the_start_of_a_lead_is_that_of_a_fine_search():
    random = np.random.default_rng(0)
    found = 0
    for _ in range(50):
        first, second = (
            (np.sort(random.uniform(0, 100, n)), random.uniform(1, 2, n)) for n in (6, 9)
        )
        low, high = (max(first[0][0], second[0][0]), min(first[0][-1], second[0][-1]))
        x = np.linspace(low, high, 20_001)
        behind = np.flatnonzero(np.interp(x, *first) >= np.interp(x, *second))
        result = lead(first, second)
        if len(behind) and behind[-1] == len(x) - 1:
            assert result.start is None
        else:
            expected = x[behind[-1]] if len(behind) else low
            assert result.start == pytest.approx(expected, abs=2 * (high - low) / 20_000)
            assert result.from_the_start == (not len(behind))
            found += 1
        assert result.end == high
    assert 10 < found < 40


def test_curves_are_compared_over_the_range_that_both_cover():
    longer = ([10, 20, 100], [4.0, 2.0, 9.0])
    shorter = ([0, 30], [3.0, 3.0])
    found = lead(longer, shorter)
    assert found == Lead(start=pytest.approx(15), from_the_start=False, end=30, margin=0.125)
    for other in (([40, 50], [1.0, 1.0]), ([], [])):
        with pytest.raises(InputError, match="no common range"):
            lead(shorter, other)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (
            [5.0, 2.0],
            "From 20 minutes of training on, the model with a head is ahead of the one without, "
            "after 30 minutes of training by 1.000 bits per byte.",
        ),
        (
            [2.5, 2.5],
            "From the first comparison, after 0 minutes of training, to the last, the model with a "
            "head is ahead of the one without, after 30 minutes of training by 0.500 bits per "
            "byte.",
        ),
        (
            [2.5, 4.0],
            "After 30 minutes of training, the model with a head is behind the one without by "
            "1.000 bits per byte.",
        ),
        (
            [4.0, 3.0],
            "After 30 minutes of training, the model with a head and the one without are level.",
        ),
    ],
)
def test_each_outcome_has_its_sentence(first, expected):
    x = [0, 1800]
    found = find_lead(curve(x, first), curve(x, [3.0, 3.0]), "cpu_seconds", "bits")
    assert describe_lead(found, "cpu_seconds", *NAMES) == expected


def test_a_thinned_curve_keeps_its_ends():
    long = {"step": list(range(0, 1000, 5)), "bits": list(range(200))}
    short = thin(long, points=50)
    assert len(short["step"]) == len(short["bits"]) == 50
    assert (short["step"][0], short["step"][-1]) == (0, 995)
    assert [step / 5 for step in short["step"]] == short["bits"]
    assert thin(long, points=500) == long
    assert thin({"step": []}) == {"step": []}


def test_the_figure_has_both_models_on_every_panel_and_marks_the_lead():
    x = [0, 600, 1200, 1800]
    one, other = curve(x, [5.0, 3.5, 2.5, 2.0]), curve(x, [4.0, 3.0, 2.8, 2.7])
    end = curve([1200, 1500], [2.5, 1.9])
    grid = curves_figure(("one head", one, [end]), ("no head", other, []), ["bits", "bits"])
    assert len(grid) == 2 * len(SCALES)
    for axes, scale in zip(grid, [*SCALES.values()] * 2, strict=True):
        first, finished, second, mark = axes.get_lines()[:4]
        np.testing.assert_allclose(first.get_xdata(), np.multiply(x, scale.factor))
        assert list(first.get_ydata()) == one["bits"]
        assert list(finished.get_ydata()) == end["bits"]
        assert list(second.get_ydata()) == other["bits"]
        start = find_lead(one, other, "bytes_read", "bits").start
        assert mark.get_xdata()[0] == pytest.approx(start * scale.factor)
        assert axes.get_ylim()[0] < 1.9
    plt.close("all")
