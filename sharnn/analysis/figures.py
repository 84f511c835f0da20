"""Pictures of a survey: weight by distance, by class of byte, by string, and on followers.

They need matplotlib (``pip install "sharnn[book]"``). In all of them 1 is an even share, and bars
of error are two standard errors to each side.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sharnn.analysis.byte_facts import BYTE_CLASSES
from sharnn.analysis.results import Estimate, Survey
from sharnn.errors import InputError
from sharnn.plots import BLACK, BLUE, GREY, ORANGE, panels, visible_byte

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAINTEST = 1e-3  # relative weights below are drawn as this one: a logarithm has no 0
LONGEST = 16  # characters of a string that are shown
RARE = 20  # queries; a class with fewer is left out


def distance_figure(survey: Survey, block: int | None = None, axes: Axes | None = None) -> Axes:
    """Draws how the weight of a head spreads over distance, relative to an even spread.

    Args:
        survey: what `sharnn.analysis.statistics.survey` returned.
        block: the head's block; None for the first that has one.
        axes: where to draw; None for a new figure.

    Returns:
        The axes.

    Raises:
        InputError: the block has no head, or matplotlib is missing.

    Example:
        >>> from sharnn.analysis.statistics import survey
        >>> from sharnn import SHARNN, ModelConfig
        >>> result = survey(SHARNN(ModelConfig(dim=16, boom_dim=64, memory=8)), b"abc" * 10)
        >>> [label.get_text() for label in distance_figure(result).get_xticklabels()]
        ['1', '2', '3-4', '5-8']
    """
    head = survey.head(block)
    axes = axes or panels()[0]
    share = Estimate(head.mass.value / survey.even, head.mass.error / survey.even)
    _even_line(axes)
    _dots(axes, torch.arange(len(survey.bins)).double(), share, BLUE, "o", "this head")
    names = [f"{low}-{high}" if low < high else str(low) for low, high in survey.bins]
    crowded = len(names) > 6
    axes.set_xticks(
        range(len(names)),
        names,
        rotation=40 if crowded else 0,
        ha="right" if crowded else "center",
        rotation_mode="anchor",
    )
    if crowded:
        axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("distance from the predicted byte (bytes back)")
    axes.set_ylabel("relative weight (1 = even share)")
    _scale(axes, share.value)
    note = f"half the weight within {head.within(0.5):,} bytes, 90 % within {head.within(0.9):,}"
    _headroom(axes, 0.15)
    _note(axes, note)
    return axes


def class_figure(survey: Survey, block: int | None = None, axes: Axes | None = None) -> Axes:
    """Draws which classes of byte a head looks at, after which class.

    Colours are on a logarithmic scale around 1, orange for more and purple for less. Cells of
    fewer than 20 queries, and pairs that don't occur, are left grey.

    Args:
        survey: what `sharnn.analysis.statistics.survey` returned.
        block: the head's block; None for the first that has one.
        axes: where to draw; None for a new figure.

    Returns:
        The axes.

    Raises:
        InputError: the block has no head, or matplotlib is missing.
    """
    head = survey.head(block)
    axes = axes or panels(width=7, height=5)[0]
    means = head.by_class.value.clone()  # (classes, classes)
    means[survey.class_queries < RARE] = torch.nan
    logs = means.clamp(min=FAINTEST).log2()
    finite = logs[~logs.isnan()].abs()
    reach = max(1.0, float(finite.max())) if len(finite) else 1.0
    image = axes.imshow(
        logs.numpy(), cmap="PuOr_r", vmin=-reach, vmax=reach, aspect="auto", interpolation="nearest"
    )
    for row, column in (~means.isnan()).nonzero().tolist():
        strong = abs(float(logs[row, column])) > 0.6 * reach
        color = "white" if strong else "black"
        number = _cell(float(means[row, column]))
        axes.text(column, row, number, ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(len(BYTE_CLASSES)), BYTE_CLASSES, rotation=30, ha="right")
    counts = [f"{count:,}" for count in survey.class_queries.tolist()]
    rows = [f"{name} ({count})" for name, count in zip(BYTE_CLASSES, counts, strict=True)]
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(labelsize=9)
    axes.grid(visible=False)
    axes.set_facecolor("#dddddd")
    axes.set_xlabel("class of the remembered byte")
    axes.set_ylabel("class of the byte just read (queries)")
    bar = axes.figure.colorbar(image, ax=axes, label="relative weight (1 = even share)")
    step = math.ceil(reach / 4)
    ticks = range(-(int(reach) // step) * step, int(reach) + 1, step)  # 0, an even share, is one
    bar.set_ticks(list(ticks), labels=[_power(2.0**tick) for tick in ticks])
    return axes


def recalled_figure(
    survey: Survey, block: int | None = None, axes: Axes | None = None, count: int = 10
) -> Axes:
    """Draws the strings that a head recalls the most and the least, with their occurrences.

    Args:
        survey: what `sharnn.analysis.statistics.survey` returned.
        block: the head's block; None for the first that has one.
        axes: where to draw; None for a new figure.
        count: strings at either end.

    Returns:
        The axes.

    Raises:
        InputError: the block has no head, ``count`` is not positive, or matplotlib is missing.
    """
    if count < 1:
        raise InputError(f"count must be at least 1, got {count}")
    strings = survey.head(block).recalled
    axes = axes or panels(width=6, height=5)[0]
    shown = strings if len(strings) <= 2 * count else strings[:count] + strings[-count:]
    ratios = torch.tensor([string.ratio for string in shown]).clamp(min=FAINTEST)
    errors = 2 * torch.tensor([string.error for string in shown]).nan_to_num(0.0)
    lows = (ratios - errors).clamp(min=FAINTEST)
    rows = range(len(shown))
    axes.set_xscale("log", base=2)
    axes.barh(
        rows,
        (ratios - 1).tolist(),
        left=1,
        height=0.7,
        color=[ORANGE if ratio > 1 else BLUE for ratio in ratios],
        xerr=torch.stack([ratios - lows, errors]).numpy(),
        error_kw={"ecolor": BLACK, "elinewidth": 1},
    )
    axes.axvline(1, color=GREY, linestyle="--")
    # A "$" is a dollar: strings are shown as they are, never read as formulas.
    axes.set_yticks(
        rows, [_label(string.text) for string in shown], family="monospace", parse_math=False
    )
    axes.tick_params(axis="y", labelsize=8)
    for row, string in zip(rows, shown, strict=True):
        axes.annotate(
            f"{string.count:,}",
            (1.01, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=7,
            color=GREY,
        )
    axes.set_ylim(len(shown) - 0.4, -0.6)
    if shown:
        # An error as large as its ratio would reach to 0, which is endlessly far: it is cut off.
        axes.set_xlim(min(float(ratios.min()), 0.5) / 1.5, max(float(ratios.max()), 2.0) * 1.5)
    _plain_ticks(axes, "x")
    if len(shown) < len(strings):
        axes.axhline(count - 0.5, color=GREY, linewidth=0.8)
    if not shown:
        _note(axes, "no string occurs often enough")
    axes.set_xlabel("relative weight on the last byte (1 = even)")
    axes.set_ylabel("string (right: its occurrences)")
    return axes


def induction_figure(survey: Survey, block: int | None = None, axes: Axes | None = None) -> Axes:
    """Draws the test for induction: weight on followers, against the same byte elsewhere.

    Args:
        survey: what `sharnn.analysis.statistics.survey` returned.
        block: the head's block; None for the first that has one.
        axes: where to draw; None for a new figure.

    Returns:
        The axes.

    Raises:
        InputError: the block has no head, or matplotlib is missing.
    """
    tests = survey.head(block).induction
    axes = axes or panels(width=6)[0]
    place = torch.arange(len(tests)).double()
    _even_line(axes)
    values = []
    for name, color, marker, shift in (
        ("follower", BLUE, "o", -0.08),
        ("same_byte", ORANGE, "s", 0.08),
    ):
        estimates = [getattr(test, name) for test in tests]
        joined = Estimate(
            torch.stack([estimate.value for estimate in estimates]),
            torch.stack([estimate.error for estimate in estimates]),
        )
        label = name if name == "follower" else "same byte elsewhere"
        _dots(axes, place + shift, joined, color, marker, label)
        values.append(joined.value)
    labels = [
        f"{test.length}\n{test.found:,}\n{float(test.right.value):.0%} right"
        if test.found
        else f"{test.length}\nnone"
        for test in tests
    ]
    axes.set_xticks(range(len(tests)), labels, fontsize=8)
    axes.set_xlim(-0.5, len(tests) - 0.5)
    axes.set_xlabel("last bytes that occurred before; queries;\nright: the same byte follows again")
    axes.set_ylabel("relative weight (1 = even share)")
    _scale(axes, torch.cat(values))
    _headroom(axes, 0.45)
    axes.legend(loc="upper left", fontsize=8)
    return axes


def survey_figure(survey: Survey, block: int | None = None) -> Figure:
    """Draws the four pictures of one head in one figure.

    Args:
        survey: what `sharnn.analysis.statistics.survey` returned.
        block: the head's block; None for the first that has one.

    Returns:
        The figure, 11 by 8.5 inches.

    Raises:
        InputError: the block has no head, or matplotlib is missing.
    """
    from matplotlib.figure import Figure

    head = survey.head(block)
    every = panels(4, width=11, height=8.5)
    figure = every[0].figure
    assert isinstance(figure, Figure)
    grid = figure.add_gridspec(2, 2, height_ratios=(1, 1.15))
    for i, axes in enumerate(every):
        axes.set_subplotspec(grid[i])
    distance_figure(survey, block, every[0]).set_title("By distance")
    induction_figure(survey, block, every[1]).set_title("On what followed the same bytes before")
    recalled_figure(survey, block, every[2]).set_title("Most and least recalled strings")
    class_figure(survey, block, every[3]).set_title("By class of byte")
    number, largest = float(head.effective_number.value), float(head.largest.value)
    figure.suptitle(
        f"Head of block {head.block}: {survey.queries:,} queries that see "
        f"{survey.visible_keys:,.0f} keys; effective number {number:,.0f}, "
        f"largest weight {largest:.2g}",
        fontsize=11,
    )
    return figure


def _label(text: bytes) -> str:
    """A string in a picture, shortened where it is long."""
    marks = "".join(map(visible_byte, text[: LONGEST + 1]))
    return marks if len(marks) <= LONGEST else marks[: LONGEST - 1] + "…"


def _cell(value: float) -> str:
    """A relative weight in few characters."""
    if value < 0.005:
        return "<.01"
    return f"{value:.2f}" if value < 9.995 else f"{value:.0f}"


def _power(value: float) -> str:
    """A power of 2 in full, 1/8 or 1 or 64."""
    return f"{round(value):,}" if value > 0.9 else f"1/{round(1 / value):,}"


def _even_line(axes: Axes) -> None:
    axes.axhline(1, color=GREY, linestyle="--", label="even share")


def _dots(axes: Axes, place: Tensor, values: Estimate, color: str, marker: str, label: str) -> None:
    """Means with two standard errors to each side; places without a mean stay empty."""
    known = ~values.value.isnan()
    middle = values.value[known].clamp(min=FAINTEST)
    error = 2 * values.error[known].nan_to_num(0.0)
    low = (middle - error).clamp(min=FAINTEST)
    axes.errorbar(
        place[known].numpy(),
        middle.numpy(),
        torch.stack([middle - low, error]).numpy(),
        fmt=marker,
        color=color,
        markersize=5,
        capsize=2,
        label=label,
    )


def _scale(axes: Axes, values: Tensor) -> None:
    """A logarithmic axis where the values lie far apart, else one that shows 1."""
    known = values[~values.isnan()].clamp(min=FAINTEST)
    if len(known) and float(known.max() / known.min().clamp(max=1)) > 8:
        axes.set_yscale("log", base=2)
        _plain_ticks(axes, "y")


def _plain_ticks(axes: Axes, which: str) -> None:
    """Powers of 2 written as numbers, few enough to be read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(base=2, numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    axis.set_minor_locator(NullLocator())


def _headroom(axes: Axes, share: float) -> None:
    """Room above the data for words."""
    scale = axes.yaxis.get_transform()
    low, high = scale.transform(axes.get_ylim())
    axes.set_ylim(top=float(scale.inverted().transform([high + share * (high - low)])[0]))


def _note(axes: Axes, text: str) -> None:
    axes.text(0.98, 0.96, text, transform=axes.transAxes, ha="right", va="top", fontsize=8)
