"""Figures of attention statistics: weight by distance, byte class and string, and on followers.

They need matplotlib. In every figure 1 is an even share, and error
bars extend two standard errors to each side.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sharnn.analysis.byte_facts import BYTE_CLASSES
from sharnn.analysis.results import AttentionStatistics, Estimate
from sharnn.errors import InputError
from sharnn.plots import BLACK, BLUE, GREY, ORANGE, panels, visible_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_WEIGHT = 1e-3  # smaller relative weights are drawn as this one: a logarithm has no 0
MAX_LABEL = 16  # maximum length of a string's label, in characters
MIN_QUERIES = 20  # classes with fewer queries are left out


def distance_figure(
    statistics: AttentionStatistics, block: int | None = None, axes: Axes | None = None
) -> Axes:
    """Draws a head's attention weight in each bin of distances, relative to an even share.

    Args:
        statistics: the result of `sharnn.attention_statistics`.
        block: index of the head's block; None for the first block that has a head.
        axes: axes to draw on; None for a new figure.

    Raises:
        InputError: the block has no head, or matplotlib is missing.

    Example:
        >>> from sharnn import SHARNN, ModelConfig, attention_statistics
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64, memory=8))
        >>> axes = distance_figure(attention_statistics(model, b"abc" * 10))
        >>> [label.get_text() for label in axes.get_xticklabels()]
        ['1', '2', '3-4', '5-8']
    """
    head = statistics.head(block)
    axes = axes or panels()[0]
    share = Estimate(head.mass.value / statistics.even_mass, head.mass.error / statistics.even_mass)
    _even_line(axes)
    _dots(axes, torch.arange(len(statistics.bins)).double(), share, BLUE, "o", "this head")
    names = [f"{low}-{high}" if low < high else str(low) for low, high in statistics.bins]
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


def class_figure(
    statistics: AttentionStatistics, block: int | None = None, axes: Axes | None = None
) -> Axes:
    """Draws the mean relative weight for each pair of byte classes, of the query and of the key.

    The colours follow a logarithmic scale around 1: orange is more than an even share, purple less.
    Classes with fewer than 20 queries, and pairs that don't occur, are left grey.

    Args:
        statistics: the result of `sharnn.attention_statistics`.
        block: index of the head's block; None for the first block that has a head.
        axes: axes to draw on; None for a new figure.

    Raises:
        InputError: the block has no head, or matplotlib is missing.
    """
    head = statistics.head(block)
    axes = axes or panels(width=7, height=5)[0]
    means = head.by_class.value.clone()  # (classes, classes)
    means[statistics.class_queries < MIN_QUERIES] = torch.nan
    logs = means.clamp(min=MIN_WEIGHT).log2()
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
    counts = [f"{count:,}" for count in statistics.class_queries.tolist()]
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
    statistics: AttentionStatistics,
    block: int | None = None,
    axes: Axes | None = None,
    count: int = 10,
) -> Axes:
    """Draws the strings that a head recalls most and least, with their numbers of occurrences.

    Args:
        statistics: the result of `sharnn.attention_statistics`.
        block: index of the head's block; None for the first block that has a head.
        axes: axes to draw on; None for a new figure.
        count: number of strings at each end.

    Raises:
        InputError: the block has no head, ``count`` is not positive, or matplotlib is missing.
    """
    if count < 1:
        raise InputError(f"count must be at least 1, got {count}")
    strings = statistics.head(block).recalled
    axes = axes or panels(width=6, height=5)[0]
    shown = strings if len(strings) <= 2 * count else strings[:count] + strings[-count:]
    ratios = torch.tensor([string.ratio for string in shown]).clamp(min=MIN_WEIGHT)
    errors = 2 * torch.tensor([string.error for string in shown]).nan_to_num(0.0)
    lows = (ratios - errors).clamp(min=MIN_WEIGHT)
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
    # Strings are shown literally: a "$" does not start a formula.
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
        # An error bar as long as its ratio would extend to 0, which is infinitely far on this axis.
        axes.set_xlim(min(float(ratios.min()), 0.5) / 1.5, max(float(ratios.max()), 2.0) * 1.5)
    _plain_ticks(axes, "x")
    if len(shown) < len(strings):
        axes.axhline(count - 0.5, color=GREY, linewidth=0.8)
    if not shown:
        _note(axes, "no string occurs often enough")
    axes.set_xlabel("relative weight on the last byte (1 = even)")
    axes.set_ylabel("string (right: number of occurrences)")
    return axes


def induction_figure(
    statistics: AttentionStatistics, block: int | None = None, axes: Axes | None = None
) -> Axes:
    """Draws the test for induction: weight on followers and on the same byte elsewhere.

    Args:
        statistics: the result of `sharnn.attention_statistics`.
        block: index of the head's block; None for the first block that has a head.
        axes: axes to draw on; None for a new figure.

    Raises:
        InputError: the block has no head, or matplotlib is missing.
    """
    tests = statistics.head(block).induction
    axes = axes or panels(width=6)[0]
    position = torch.arange(len(tests)).double()
    _even_line(axes)
    values = []
    for name, color, marker, shift in (
        ("follower", BLUE, "o", -0.08),
        ("same_byte", ORANGE, "s", 0.08),
    ):
        estimates = [getattr(test, name) for test in tests]
        stacked = Estimate(
            torch.stack([estimate.value for estimate in estimates]),
            torch.stack([estimate.error for estimate in estimates]),
        )
        label = name if name == "follower" else "same byte elsewhere"
        _dots(axes, position + shift, stacked, color, marker, label)
        values.append(stacked.value)
    labels = [
        f"{test.length}\n{test.num_queries:,}\n{float(test.accuracy.value):.0%} right"
        if test.num_queries
        else f"{test.length}\nnone"
        for test in tests
    ]
    axes.set_xticks(range(len(tests)), labels, fontsize=8)
    axes.set_xlim(-0.5, len(tests) - 0.5)
    axes.set_xlabel("repeated bytes; number of queries;\nright: the same byte follows again")
    axes.set_ylabel("relative weight (1 = even share)")
    _scale(axes, torch.cat(values))
    _headroom(axes, 0.45)
    axes.legend(loc="upper left", fontsize=8)
    return axes


def statistics_figure(statistics: AttentionStatistics, block: int | None = None) -> Figure:
    """Draws the four plots of one head in one figure of 11 by 8.5 inches.

    Args:
        statistics: the result of `sharnn.attention_statistics`.
        block: index of the head's block; None for the first block that has a head.

    Raises:
        InputError: the block has no head, or matplotlib is missing.
    """
    head = statistics.head(block)
    plots = panels(4, width=11, height=8.5)
    from matplotlib.figure import Figure

    figure = plots[0].figure
    assert isinstance(figure, Figure)
    grid = figure.add_gridspec(2, 2, height_ratios=(1, 1.15))
    for i, axes in enumerate(plots):
        axes.set_subplotspec(grid[i])
    distance_figure(statistics, block, plots[0]).set_title("By distance")
    induction_figure(statistics, block, plots[1]).set_title("On bytes that followed a repeat")
    recalled_figure(statistics, block, plots[2]).set_title("Most and least recalled strings")
    class_figure(statistics, block, plots[3]).set_title("By class of byte")
    number, largest = float(head.effective_number.value), float(head.largest.value)
    figure.suptitle(
        f"Head of block {head.block}: {statistics.num_queries:,} queries that see "
        f"{statistics.mean_num_visible:,.0f} keys on average; effective number {number:,.0f}, "
        f"mean largest weight {largest:.2g}",
        fontsize=11,
    )
    return figure


def _label(text: bytes) -> str:
    """Returns a string as a label, shortened if it is long."""
    marks = visible_text(text[: 4 * MAX_LABEL])  # a character has at most 4 bytes
    return marks if len(marks) <= MAX_LABEL else marks[: MAX_LABEL - 1] + "…"


def _cell(value: float) -> str:
    """Formats a relative weight in at most four characters."""
    if value < 0.005:
        return "<.01"
    return f"{value:.2f}" if value < 9.995 else f"{value:.0f}"


def _power(value: float) -> str:
    """Formats a power of 2 as an integer or a fraction: 64, 1, 1/8."""
    return f"{round(value):,}" if value > 0.9 else f"1/{round(1 / value):,}"


def _even_line(axes: Axes) -> None:
    axes.axhline(1, color=GREY, linestyle="--", label="even share")


def _dots(
    axes: Axes, position: Tensor, values: Estimate, color: str, marker: str, label: str
) -> None:
    """Draws means with two standard errors to each side; NaN means are left out."""
    known = ~values.value.isnan()
    middle = values.value[known].clamp(min=MIN_WEIGHT)
    error = 2 * values.error[known].nan_to_num(0.0)
    low = (middle - error).clamp(min=MIN_WEIGHT)
    axes.errorbar(
        position[known].numpy(),
        middle.numpy(),
        torch.stack([middle - low, error]).numpy(),
        fmt=marker,
        color=color,
        markersize=5,
        capsize=2,
        label=label,
    )


def _scale(axes: Axes, values: Tensor) -> None:
    """Makes the y axis logarithmic if the values, or a value and 1, differ by a factor of 8."""
    known = values[~values.isnan()].clamp(min=MIN_WEIGHT)
    if len(known) and float(known.max() / known.min().clamp(max=1)) > 8:
        axes.set_yscale("log", base=2)
        _plain_ticks(axes, "y")


def _plain_ticks(axes: Axes, which: str) -> None:
    """Labels an axis, "x" or "y", with a readable number of powers of 2."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(base=2, numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    axis.set_minor_locator(NullLocator())


def _headroom(axes: Axes, share: float) -> None:
    """Extends the y axis upwards by a share of its length, as room for text."""
    scale = axes.yaxis.get_transform()
    low, high = scale.transform(axes.get_ylim())
    axes.set_ylim(top=float(scale.inverted().transform([high + share * (high - low)])[0]))


def _note(axes: Axes, text: str) -> None:
    axes.text(0.98, 0.96, text, transform=axes.transAxes, ha="right", va="top", fontsize=8)
