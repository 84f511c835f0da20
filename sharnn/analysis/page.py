"""The explorer's page: one HTML file that holds a reading, and the script that shows it."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import math
import zlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sharnn.analysis.ablation import Losses
from sharnn.analysis.trace import Reading
from sharnn.errors import InputError

SCRIPTS = "bytes payload colours charts pane words tables explorer input kernel".split()
OCTAVES = 24  # from the largest weight down to the faintest that is kept
STEP = OCTAVES / 254  # of log2, between two codes
GUESSES = 5
# The page may run what it holds, and ask nobody for anything.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"


def pack(array: Tensor, kind: str) -> dict[str, str]:
    """An array as JSON can hold it: base64 of its deflated little-endian bytes.

    Args:
        array: the numbers, any shape.
        kind: how to store them: ``"uint8"``, ``"int32"`` or ``"float32"``.

    Returns:
        ``kind`` and ``data``.

    Example:
        >>> unpack(pack(torch.tensor([1.5, 2.0]), "float32"))
        array([1.5, 2. ], dtype=float32)
    """
    values = array.cpu().numpy().astype(np.dtype(kind).newbyteorder("<"))
    return {"kind": kind, "data": base64.b64encode(zlib.compress(values.tobytes(), 6)).decode()}


def unpack(packed: Mapping[str, str]) -> np.ndarray[Any, Any]:
    """The numbers that `pack` stored, in one dimension.

    Args:
        packed: ``kind`` and ``data``.

    Returns:
        (count,) the numbers.
    """
    data = zlib.decompress(base64.b64decode(packed["data"]))
    return np.frombuffer(data, np.dtype(packed["kind"]).newbyteorder("<")).astype(packed["kind"])


def quantise(weights: Tensor) -> tuple[Tensor, float]:
    """Weights as 8-bit codes on a logarithmic scale.

    Code 255 is the largest weight, each code below it is `STEP` of log2 less, and 0 is no weight.
    So a weight is right within half a step, 3.3 %, and one fainter than 2^-24 of the largest is
    left out.

    Args:
        weights: any shape, not negative.

    Returns:
        The codes (uint8, the same shape) and log2 of the largest weight.

    Example:
        >>> codes, largest = quantise(torch.tensor([0.5, 0.25, 0.0]))
        >>> codes, largest
        (tensor([255, 244,   0], dtype=torch.uint8), -1.0)
        >>> dequantise(codes, largest)
        tensor([0.5000, 0.2433, 0.0000])
    """
    largest = math.log2(max(float(weights.max()), 2.0**-126))
    logarithm = weights.clamp(min=2.0**-126).log2()
    codes = (255 - (largest - logarithm) / STEP).round().clamp(min=0)
    return codes.to(torch.uint8), largest


def dequantise(codes: Tensor, largest: float) -> Tensor:
    """The weights that `quantise` stored.

    Args:
        codes: uint8, any shape.
        largest: log2 of the largest weight.

    Returns:
        float32 of the same shape.
    """
    weights = 2.0 ** (largest - STEP * (255 - codes.float()))
    return weights * (codes > 0)


def overview_edges(memory: int) -> list[int]:
    """Distances at which the bands of the overview start, about four to a doubling.

    Args:
        memory: M, the farthest distance.

    Returns:
        The starts, and M + 1 where the last band ends.

    Example:
        >>> overview_edges(20)
        [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 16, 19, 21]
    """
    starts = {round(2 ** (n / 4)) for n in range(4 * math.ceil(math.log2(memory + 1)))}
    return [*sorted(start for start in starts if start <= memory), memory + 1]


def last_bytes(reading: Reading, count: int) -> Reading:
    """The reading of the last watched bytes alone, with the memory before them.

    Args:
        reading: the whole reading.
        count: how many watched bytes to keep.

    Returns:
        The smaller reading.
    """
    dropped = reading.watched - count
    first = reading.first + dropped
    begin = max(0, first - reading.memory)
    return dataclasses.replace(
        reading,
        text=reading.text[begin:],
        first=first - begin,
        bits=reading.bits[begin:],
        weights={block: weights[dropped:] for block, weights in reading.weights.items()},
        visible=reading.visible[dropped:],
        probabilities=reading.probabilities[dropped:],
    )


def payload(
    reading: Reading, losses: Mapping[int, Losses], about: str, megabytes: float
) -> dict[str, Any]:
    """What the page's script is given. It holds as many of the last watched bytes as fit.

    Args:
        reading: where the heads looked.
        losses: for each block that has the head, what the bytes lose without some positions.
        about: a line on the model.
        megabytes: the most that the page may weigh, in millions of bytes.

    Returns:
        Numbers, strings and packed arrays by name. ``notes`` says how exact the weights are, and
        what was dropped.

    Raises:
        InputError: not even one watched byte fits, or ``megabytes`` is no size.
    """
    if not megabytes > 0:
        raise InputError(f"megabytes must be greater than 0, got {megabytes}")
    total = count = reading.watched
    while True:
        kept = last_bytes(reading, count)
        content = _content(kept, losses, total - count, about)
        size = len(page(content, about).encode()) / 1e6
        if size <= megabytes:
            return content
        if count == 1:
            raise InputError(
                f"the page needs {size:.2f} MB for a single byte: allow more than "
                f"{megabytes} megabytes, or read with less memory"
            )
        count = max(1, min(count - 1, int(count * 0.97 * megabytes / size)))


def _content(
    reading: Reading, losses: Mapping[int, Losses], dropped: int, about: str
) -> dict[str, Any]:
    """The payload of a reading whose first ``dropped`` watched bytes are gone."""
    some = next(iter(losses.values()))
    chances, likely = reading.probabilities.topk(min(GUESSES, reading.probabilities.shape[1]))
    notes = [
        "Weights are stored in 8 bits, on a logarithmic scale: each is within "
        f"{100 * (2 ** (STEP / 2) - 1):.1f} % of the model's, and those below 2^-{OCTAVES} of the "
        "largest are shown as 0. All other numbers are the model's own.",
        f"Removed at random: mean and standard deviation of {some.draws} draws.",
    ]
    if dropped:
        notes.append(
            f"To keep the page small, the first {dropped:,} of {dropped + reading.watched:,} "
            f"watched bytes were dropped."
        )
    return {
        "about": about,
        "notes": notes,
        "memory": reading.memory,
        "first": reading.first,
        "watched": reading.watched,
        # The byte that loses most without what its head looked at is a good one to begin with.
        "begin": int(some.top[dropped:, -1].argmax()),
        "text": pack(torch.tensor(list(reading.text)), "uint8"),
        "bits": pack(reading.bits, "float32"),
        "visible": pack(reading.visible, "int32"),
        "likely": pack(likely, "uint8"),
        "chances": pack(chances, "float32"),
        "edges": overview_edges(reading.memory),
        "counts": list(some.counts),
        "cuts": [*(nearest for nearest, _ in some.bands), reading.memory + 1],
        "heads": [
            _head(block, reading, losses[block], dropped) for block in sorted(reading.weights)
        ],
    }


def _head(block: int, reading: Reading, losses: Losses, dropped: int) -> dict[str, Any]:
    """What the script needs of one head."""
    weights = reading.weights[block]  # (watched, memory)
    codes, largest = quantise(weights)
    entropy = -(weights * weights.clamp(min=1e-30).log2()).sum(-1)  # (watched,) bits
    within = weights.cumsum(-1)  # (watched, memory) weight up to each distance
    edges = torch.tensor(overview_edges(reading.memory)) - 1
    sums = torch.cat([torch.zeros(len(weights), 1), within], dim=1)  # (watched, memory + 1)
    return {
        "block": block,
        "largest": largest,
        "step": STEP,
        "codes": pack(codes, "uint8"),
        "effective": pack(2**entropy, "float32"),
        "median": pack((within < 0.5).sum(-1) + 1, "int32"),
        "reach": pack((within < 0.9).sum(-1) + 1, "int32"),
        "mass": pack(sums[:, edges[1:]] - sums[:, edges[:-1]], "float32"),
        "top": pack(losses.top[dropped:], "float32"),
        "chance": pack(losses.random[dropped:], "float32"),
        "spread": pack(losses.spread[dropped:], "float32"),
        "bands": pack(losses.band[dropped:], "float32"),
    }


def page(content: Mapping[str, Any], title: str) -> str:
    """The whole page: a document that needs no other file and no network.

    Args:
        content: what `payload` returned.
        title: the document's title.

    Returns:
        The HTML.
    """
    assets = files("sharnn.analysis") / "assets"

    def text(name: str) -> str:
        return (assets / name).read_text(encoding="utf-8")

    # Inside a script element only "<" could end it; JSON may write it as an escape.
    data = json.dumps(content).replace("<", "\\u003c")
    script = "\n".join(text(f"{name}.js") for name in SCRIPTS)
    return (
        '<!doctype html>\n<html lang="en" data-theme="light">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{text('explorer.css')}</style>\n</head>\n"
        f"<body>\n{text('explorer.html')}"
        f'<script type="application/json" id="payload">{data}</script>\n'
        f'<script>\n"use strict";\n(() => {{\n{script}\nstart();\n}})();\n</script>\n'
        "</body>\n</html>\n"
    )


def frame(document: str, height: int = 1500) -> str:
    """A page inside another: isolated styles and keys, and no file beside it.

    Args:
        document: the HTML of the page.
        height: in pixels, until the page sets its own.

    Returns:
        The HTML of the frame.
    """
    return (
        f'<iframe title="Attention explorer" srcdoc="{html.escape(document)}" '
        f'style="width: 100%; height: {height}px; border: 0"></iframe>'
    )
