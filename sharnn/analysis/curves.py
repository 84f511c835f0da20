"""Learning curves of two models: their figure, and from when on one of them is ahead.

A curve is a mapping of columns of equal length: ``"bytes_read"`` and ``"cpu_seconds"`` so far, and
one column of bits per byte for each text, under the text's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sharnn.errors import InputError
from sharnn.plots import BLUE, GREY, ORANGE, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Scale:
    """A quantity against which curves are compared.

    Args:
        label: its name and unit, for the axis of a figure.
        factor: number of its units in one unit of the column.
        unit: its unit in a sentence.
    """

    label: str
    factor: float
    unit: str


SCALES = {
    "cpu_seconds": Scale("processor time of training (minutes)", 1 / 60, "minutes of training"),
    "bytes_read": Scale("text read (MB)", 1e-6, "MB of text"),
}


@dataclass(frozen=True)
class Lead:
    """The outcome of a comparison of two curves over the range that both cover.

    Args:
        start: from here to the end the first curve is below the second; None if it isn't at the
            end.
        from_the_start: it is below over the whole range.
        end: end of the range.
        margin: the second curve minus the first at the end, in bits per byte.
    """

    start: float | None
    from_the_start: bool
    end: float
    margin: float


def find_lead(first: Curve, second: Curve, column: str, text: str) -> Lead:
    """Finds from when on the first curve stays below the second.

    Between their points the curves are taken as straight lines.

    Args:
        first, second: the curves.
        column: the column to compare them by, a key of ``SCALES``.
        text: name of the text.

    Returns:
        The lead, in units of the column.

    Raises:
        InputError: the curves have no common range.

    Example:
        >>> slow = {"bytes_read": [0, 10, 20], "bits": [6.0, 4.0, 2.0]}
        >>> fast = {"bytes_read": [0, 20], "bits": [5.0, 3.0]}
        >>> find_lead(slow, fast, "bytes_read", "bits")
        Lead(start=10.0, from_the_start=False, end=20.0, margin=1.0)
        >>> find_lead(fast, slow, "bytes_read", "bits").start is None
        True
    """
    xs = [np.asarray(curve[column], dtype=np.float64) for curve in (first, second)]
    if not all(map(len, xs)) or max(x[0] for x in xs) > min(x[-1] for x in xs):
        raise InputError("the curves have no common range")
    start, end = max(x[0] for x in xs), min(x[-1] for x in xs)
    inside = np.concatenate(xs)
    x = np.unique(np.concatenate([inside[(inside >= start) & (inside <= end)], [start, end]]))
    ys = [np.interp(x, own, curve[text]) for own, curve in zip(xs, (first, second), strict=True)]
    ahead = ys[1] - ys[0]  # linear between neighbouring points: x has all points of both curves
    behind = np.flatnonzero(ahead <= 0)
    margin = float(ahead[-1])
    if not len(behind):
        return Lead(float(start), True, float(end), margin)
    last = behind[-1]
    if last == len(x) - 1:
        return Lead(None, False, float(end), margin)
    share = -ahead[last] / (ahead[last + 1] - ahead[last])
    crossing = x[last] + share * (x[last + 1] - x[last])
    return Lead(float(crossing), False, float(end), margin)


def describe_lead(lead: Lead, column: str, first: str, second: str) -> str:
    """Describes a lead in one sentence, whichever model is ahead.

    Args:
        lead: from `find_lead`.
        column: the column that it was found by.
        first, second: names of the models, as the subject of a sentence.

    Example:
        >>> lead = Lead(start=600.0, from_the_start=False, end=1800.0, margin=0.05)
        >>> describe_lead(lead, "cpu_seconds", "the model with a head", "the one without")
        'From 10 minutes of training on, the model with a head is ahead of the one without, after
        30 minutes of training by 0.050 bits per byte.'
    """
    scale = SCALES[column]

    def amount(value: float) -> str:
        return f"{value * scale.factor:.3g} {scale.unit}"

    by = f"by {abs(lead.margin):.3f} bits per byte"
    if lead.start is None and lead.margin == 0:
        return f"After {amount(lead.end)}, {first} and {second} are level."
    if lead.start is None:
        return f"After {amount(lead.end)}, {first} is behind {second} {by}."
    begin = f"From {amount(lead.start)} on"
    if lead.from_the_start:
        begin = f"From the first comparison, after {amount(lead.start)}, to the last"
    return f"{begin}, {first} is ahead of {second}, after {amount(lead.end)} {by}."


def thin(curve: Curve, points: int = 100) -> dict[str, list[float]]:
    """Returns a curve with at most the given number of points, evenly spaced, its ends included.

    Example:
        >>> thin({"step": list(range(9))}, points=3)
        {'step': [0, 4, 8]}
    """
    length = len(next(iter(curve.values()), ()))
    kept = np.unique(np.linspace(0, length - 1, min(points, length)).round().astype(np.int64))
    return {name: [values[i] for i in kept] for name, values in curve.items()}


def curves_figure(
    first: tuple[str, Curve, Sequence[Curve]],
    second: tuple[str, Curve, Sequence[Curve]],
    texts: Sequence[str],
) -> list[Axes]:
    """Draws the curves of two models, against time and against bytes read, one row per text.

    A dotted vertical line marks the point from which the first model's curve stays below.

    Args:
        first, second: the name of each model, its curve at a constant learning rate, and curves
            that leave it with a falling rate.
        texts: names of the texts.

    Returns:
        The axes, row by row.

    Raises:
        InputError: the curves have no common range, or matplotlib is missing.

    Example:
        >>> curve = {"bytes_read": [0, 9], "cpu_seconds": [0, 9], "valid": [6.0, 5.0]}
        >>> axes = curves_figure(("a", curve, []), ("b", curve, [curve]), ["valid"])
        >>> [line.get_label() for line in axes[0].figure.legends[0].get_lines()]
        ['a', 'b', 'falling learning rate']
    """
    grid = panels(len(SCALES), height=3.2 * len(texts), rows=len(texts))
    positions = [(text, column) for text in texts for column in SCALES]
    for axes, (text, column) in zip(grid, positions, strict=True):
        for (name, trunk, branches), color in ((first, BLUE), (second, ORANGE)):
            _draw(axes, trunk, column, text, color=color, label=name)
            for branch in branches:
                _draw(axes, branch, column, text, color=color, linestyle="--", marker="o")
        lead = find_lead(first[1], second[1], column, text)
        if lead.start is not None and not lead.from_the_start:
            axes.axvline(lead.start * SCALES[column].factor, color=GREY, linestyle=":")
        axes.set_ylim(*_limits([first[1], second[1], *first[2], *second[2]], text))
        axes.set_xlabel(SCALES[column].label)
        axes.set_title(text, fontsize=10)
    for axes in grid[:: len(SCALES)]:
        axes.set_ylabel("bits per byte")
    if first[2] or second[2]:
        grid[1].plot([], [], color=GREY, linestyle="--", label="falling learning rate")
    handles, labels = grid[1].get_legend_handles_labels()
    grid[1].figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return grid


def _draw(axes: Axes, curve: Curve, column: str, text: str, **look: Any) -> None:
    """Draws one curve; a marker marks only its last point."""
    x = np.asarray(curve[column]) * SCALES[column].factor
    axes.plot(x, curve[text], markevery=[len(x) - 1], **look)


def _limits(curves: Sequence[Curve], text: str) -> tuple[float, float]:
    """Returns limits of the axis of bits that leave out the steep start of the curves."""
    lowest = min(min(curve[text]) for curve in curves)
    # The value of each curve after a tenth of its points.
    highest = max(curve[text][len(curve[text]) // 10] for curve in curves)
    margin = 0.05 * (highest - lowest) or 0.05
    return lowest - margin, highest + margin
