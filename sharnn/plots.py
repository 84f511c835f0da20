"""Figures: loss curves and attention maps.

They need matplotlib.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sharnn.errors import InputError
from sharnn.io.files import write_atomically
from sharnn.optional import import_optional

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette is safe for colour-blind readers. The grey is legible on dark and light.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#808080"
PINK, SKY, YELLOW, BLACK = "#CC79A7", "#56B4E9", "#E69F00", "#000000"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, BLACK)
GRID = "#dddddd"


def panels(columns: int = 1, width: float = 8, height: float = 4, rows: int = 1) -> list[Axes]:
    """Creates a figure in the book's style with a grid of axes.

    Args:
        columns: number of axes in each row.
        width: width of the figure, in inches.
        height: height of the figure, in inches.
        rows: number of rows.

    Returns:
        The axes from left to right, row by row.

    Raises:
        InputError: matplotlib is missing, or can't use the backend that MPLBACKEND names.

    Example:
        >>> left, right = panels(2)
        >>> left.figure is right.figure
        True
    """
    # The style is not set by rcParams: in a notebook, an rc context around the first figure keeps
    # later figures from being displayed.
    with _valid_backend():
        import_optional("matplotlib.pyplot", "figures", "matplotlib")
        import matplotlib.pyplot as plt

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


@contextlib.contextmanager
def _valid_backend() -> Iterator[None]:
    """Context manager: reports a backend that matplotlib can't use.

    Matplotlib reads the variable MPLBACKEND when it is imported, and loads the backend with the
    first figure.
    """
    try:
        yield
    except (ImportError, ValueError) as error:
        backend = os.environ.get("MPLBACKEND")
        if not backend or isinstance(error, InputError):
            raise
        raise InputError(
            f"matplotlib can't use MPLBACKEND={backend[:100]}: unset it, or set it to agg"
        ) from error


def check_figure_name(path: Path) -> None:
    """Checks that the suffix of a path is a file format in which figures can be saved.

    Raises:
        InputError: the format is not supported, or matplotlib is missing.

    Example:
        >>> check_figure_name(Path("attention.png"))
    """
    figure = panels()[0].figure
    formats = figure.canvas.get_supported_filetypes()
    _close(figure)
    if path.suffix[1:].lower() not in formats:
        raise InputError(f"{path}: the name of a figure must end in one of .{', .'.join(formats)}")


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure atomically and closes it.

    Args:
        figure: the figure.
        path: the file to write; its suffix selects the format.

    Raises:
        InputError: the file can't be written.
    """
    image = io.BytesIO()
    figure.savefig(image, format=path.suffix[1:].lower())
    _close(figure)
    write_atomically(path, image.getvalue())


def _close(figure: Any) -> None:
    import matplotlib.pyplot as plt

    plt.close(figure)


def loss_curve(metrics: Sequence[dict[str, Any]], axes: Axes | None = None) -> Axes:
    """Draws training and validation loss over the number of bytes read.

    Args:
        metrics: the metrics of a run, as returned by `sharnn.train` or read from
            ``metrics.jsonl``.
        axes: axes to draw on; None for a new figure.

    Raises:
        InputError: matplotlib is missing.

    Example:
        >>> record = {"step": 10, "bytes": 500, "train_bits_per_byte": 5.0}
        >>> loss_curve([record]).get_ylabel()
        'bits per byte'
    """
    axes = axes or panels()[0]
    read, total = {0: 0.0}, 0.0  # step -> thousands of bytes read so far
    for record in metrics:
        total += record.get("bytes", 0) / 1000
        read[record["step"]] = total
    for key, name, color, marker in (
        ("train_bits_per_byte", "training", BLUE, ""),
        ("valid_bits_per_byte", "validation", ORANGE, "o"),
    ):
        records = [record for record in metrics if key in record]
        if records:
            x = [read[record["step"]] for record in records]
            y = [record[key] for record in records]
            axes.plot(x, y, label=name, color=color, marker=marker)
    axes.set_xlabel("bytes read (thousands)")
    axes.set_ylabel("bits per byte")
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    return axes


class LiveCurve:
    """A loss curve that is redrawn in a notebook while a model trains.

    Args:
        every: number of metrics records between redraws.

    Example:
        >>> curve = LiveCurve()
        >>> # sharnn.train(config, corpus, recipe, on_metrics=curve)
    """

    def __init__(self, every: int = 5) -> None:
        self.every = every
        self.metrics: list[dict[str, Any]] = []
        self.handle: Any = None

    def __call__(self, record: dict[str, Any]) -> None:
        """Adds one metrics record and redraws the curve if it is due."""
        self.metrics.append(record)
        if len(self.metrics) % self.every == 0:
            self.draw()

    def draw(self) -> None:
        """Draws the curve in place of the previous one."""
        import matplotlib.pyplot as plt
        from IPython.display import display

        figure = loss_curve(self.metrics).figure
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)
        plt.close(figure)  # type: ignore[arg-type]


def visible_byte(byte: int) -> str:
    r"""Returns one visible character for a byte, to label figures.

    Printable ASCII characters are returned unchanged. Spaces, line ends and all other bytes are
    replaced by symbols.

    Example:
        >>> "".join(map(visible_byte, "a b\n\u00e9".encode()))
        'a·b↵□□'
    """
    if byte == 0x20:
        return "·"
    if byte == 0x0A:
        return "↵"
    return chr(byte) if 0x21 <= byte < 0x7F else "□"


def visible_text(text: bytes) -> str:
    r"""Returns bytes as text, to label figures.

    Printable ASCII characters, spaces and line ends are shown as `visible_byte` shows them. Other
    characters are shown as they are if matplotlib's own fonts have them, and by number otherwise.
    A byte that belongs to no whole character is shown in hexadecimal.

    Example:
        >>> visible_text("a \u00e9".encode() + b"\xe2")
        'a·é\\xe2'
        >>> visible_text("\u4e2d".encode())
        'U+4E2D'
    """
    characters = text.decode("utf-8", "surrogateescape")
    return "".join(map(_visible_character, characters))


def _visible_character(character: str) -> str:
    code = ord(character)
    if code < 0x80:
        return visible_byte(code)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that could not be decoded
        return f"\\x{code - 0xDC00:02x}"
    return character if character.isprintable() and code in _glyphs() else f"U+{code:04X}"


@cache
def _glyphs() -> frozenset[int]:
    """Returns the characters of the monospaced font that matplotlib brings along."""
    from matplotlib import font_manager

    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans Mono")).get_charmap())


def attention_map(
    weights: Tensor, text: bytes, columns: int = 200, axes: Axes | None = None
) -> Axes:
    """Draws the attention weights of each query in a segment over all keys.

    There are too many keys to show each of them. A column of the map is a group of neighbouring
    keys and shows the sum of their weights. The colour scale is logarithmic and starts at a tenth
    of an even share.

    Args:
        weights: (time, memory + time) attention weights of one stream.
        text: the segment's bytes, one for each query, used as labels.
        columns: maximum number of groups of keys.
        axes: axes to draw on; None for a new figure.

    Raises:
        InputError: the shape of ``weights`` does not match ``text``, or matplotlib is missing.

    Example:
        >>> axes = attention_map(torch.full((2, 6), 1 / 6), b"ab", columns=3)
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['a', 'b']
    """
    if weights.dim() != 2 or weights.shape[0] != len(text):
        raise InputError(
            f"weights must have shape ({len(text)}, keys) for {len(text)} bytes, "
            f"got {tuple(weights.shape)}"
        )
    axes = axes or panels()[0]
    from matplotlib.colors import LogNorm

    time, keys = weights.shape
    columns = min(columns, keys)
    edges = torch.linspace(0, keys, columns + 1).round().long()  # (columns + 1,)
    totals = torch.cat([torch.zeros(time, 1), weights.float().cpu().cumsum(1)], dim=1)
    summed = totals[:, edges[1:]] - totals[:, edges[:-1]]  # (time, columns)
    faintest = 0.1 / columns  # a tenth of a column's even share
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
    axes.set_xlabel("position of the key, in bytes from the segment's start (memory | segment)")
    axes.set_ylabel("byte just read")
    axes.figure.colorbar(image, ax=axes, label="attention weight")
    return axes
