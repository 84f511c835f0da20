"""Pictures: the loss curve while a model trains, and the head's weights over its memory.

They need matplotlib (``pip install "sharnn[book]"``).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sharnn.checkpoint import write_atomically
from sharnn.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours can be told apart by the colour-blind; the grey reads on dark and light.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#808080"
PINK, SKY, YELLOW, BLACK = "#CC79A7", "#56B4E9", "#E69F00", "#000000"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, BLACK)
GRID = "#dddddd"


def panels(columns: int = 1, width: float = 8, height: float = 4, rows: int = 1) -> list[Axes]:
    """Axes side by side, or in rows, in a new figure of the book's style.

    Args:
        columns: how many side by side.
        width, height: of the figure, in inches.
        rows: how many one below the other.

    Returns:
        The axes from left to right, row by row.

    Raises:
        InputError: matplotlib is missing.

    Example:
        >>> left, right = panels(2)
        >>> left.figure is right.figure
        True
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise InputError("pictures need matplotlib: pip install matplotlib") from error
    # Not by rcParams: in a notebook, a context around the first figure turns later ones off.
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(width, height),
        dpi=110,
        facecolor="white",
        layout="constrained",
        squeeze=False,
    )
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.05)  # type: ignore[union-attr, call-arg]
    for axes in grid.flat:
        axes.set_prop_cycle(color=COLOURS)
        axes.grid(color=GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return list(grid.flat)


def check_picture_name(path: Path) -> None:
    """Sees to it that a figure can be written under a name.

    Args:
        path: where it will be written; the ending names the kind of picture.

    Raises:
        InputError: there is no such kind, or matplotlib is missing.

    Example:
        >>> check_picture_name(Path("survey.png"))
    """
    figure = panels()[0].figure
    kinds = figure.canvas.get_supported_filetypes()
    _close(figure)
    if path.suffix[1:].lower() not in kinds:
        raise InputError(f"{path}: a figure's name ends in one of .{', .'.join(kinds)}")


def save_picture(figure: Figure, path: Path) -> None:
    """Writes a figure, whole or not at all, and closes it.

    Args:
        figure: the figure.
        path: where to; the ending names the kind of picture.

    Raises:
        InputError: it can't be written there.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower())
    _close(figure)
    write_atomically(path, picture.getvalue())


def _close(figure: Any) -> None:
    import matplotlib.pyplot as plt

    plt.close(figure)


def loss_curve(metrics: Sequence[dict[str, Any]], axes: Axes | None = None) -> Axes:
    """Draws training and validation loss over the bytes read.

    Args:
        metrics: the lines of a run, as `sharnn.train` returns them or ``metrics.jsonl`` holds.
        axes: where to draw; None for a new figure.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is missing.

    Example:
        >>> line = {"step": 10, "bytes": 500, "train_bits_per_byte": 5.0}
        >>> loss_curve([line]).get_ylabel()
        'bits per byte'
    """
    axes = axes or panels()[0]
    read, total = {0: 0.0}, 0.0  # step -> thousands of bytes read so far
    for line in metrics:
        total += line.get("bytes", 0) / 1000
        read[line["step"]] = total
    for key, name, color, marker in (
        ("train_bits_per_byte", "training", BLUE, ""),
        ("valid_bits_per_byte", "validation", ORANGE, "o"),
    ):
        lines = [line for line in metrics if key in line]
        if lines:
            steps = [read[line["step"]] for line in lines]
            axes.plot(steps, [line[key] for line in lines], label=name, color=color, marker=marker)
    axes.set_xlabel("bytes read (thousands)")
    axes.set_ylabel("bits per byte")
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    return axes


class LiveCurve:
    """A loss curve that redraws itself in a notebook while a model trains.

    Args:
        every: lines of metrics between two drawings.

    Example:
        >>> curve = LiveCurve()
        >>> # sharnn.train(config, corpus, recipe, on_metrics=curve)
    """

    def __init__(self, every: int = 5) -> None:
        self.every = every
        self.metrics: list[dict[str, Any]] = []
        self.handle: Any = None

    def __call__(self, line: dict[str, Any]) -> None:
        """Takes one line of metrics, and redraws where it is time."""
        self.metrics.append(line)
        if len(self.metrics) % self.every == 0:
            self.draw()

    def draw(self) -> None:
        """Draws the curve in place of the one before."""
        import matplotlib.pyplot as plt
        from IPython.display import display

        figure = loss_curve(self.metrics).figure
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)
        plt.close(figure)  # type: ignore[arg-type]


def visible_byte(byte: int) -> str:
    r"""One character that stands for a byte in a picture.

    Args:
        byte: 0 to 255.

    Returns:
        The ASCII character; a space, a line's end and other bytes get a mark.

    Example:
        >>> "".join(map(visible_byte, "a b\n\u00e9".encode()))
        'a·b↵□□'
    """
    if byte == 0x20:
        return "·"
    if byte == 0x0A:
        return "↵"
    return chr(byte) if 0x21 <= byte < 0x7F else "□"


def attention_map(
    weights: Tensor, text: bytes, columns: int = 200, axes: Axes | None = None
) -> Axes:
    """Draws where each query of a segment looks, over everything it may see.

    The keys are too many to show one by one: each column is a run of neighbouring keys and shows
    the sum of their weights, on a logarithmic scale that starts at a tenth of an even share.

    Args:
        weights: (time, memory + time) attention weights of one stream.
        text: the segment's bytes, one for each query; they label the rows.
        columns: runs of keys to show.
        axes: where to draw; None for a new figure.

    Returns:
        The axes.

    Raises:
        InputError: the shapes don't fit, or matplotlib is missing.

    Example:
        >>> axes = attention_map(torch.full((2, 6), 1 / 6), b"ab", columns=3)
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['a', 'b']
    """
    if weights.dim() != 2 or weights.shape[0] != len(text):
        raise InputError(
            f"weights must have a row for each of {len(text)} bytes, got {tuple(weights.shape)}"
        )
    axes = axes or panels()[0]
    from matplotlib.colors import LogNorm

    time, keys = weights.shape
    columns = min(columns, keys)
    edges = torch.linspace(0, keys, columns + 1).round().long()  # (columns + 1,)
    totals = torch.cat([torch.zeros(time, 1), weights.float().cpu().cumsum(1)], dim=1)
    summed = totals[:, edges[1:]] - totals[:, edges[:-1]]  # (time, columns)
    faintest = 0.1 / columns  # a tenth of what an even spread would give a column
    image = axes.imshow(
        summed.clamp(min=faintest).numpy(),
        aspect="auto",
        cmap="cividis",
        norm=LogNorm(faintest, max(float(summed.max()), 10 * faintest)),
        extent=(time - keys, time, time - 0.5, -0.5),
        interpolation="nearest",
    )
    axes.set_yticks(range(time), [visible_byte(byte) for byte in text], family="monospace")
    axes.tick_params(axis="y", labelsize=9)
    axes.axvline(0, color="white", linewidth=0.8)
    axes.grid(visible=False)
    axes.set_xlabel("position looked at, in bytes from the segment's start (memory | segment)")
    axes.set_ylabel("byte just read")
    axes.figure.colorbar(image, ax=axes, label="share of attention")
    return axes
