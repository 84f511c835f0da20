"""The explorer's page: one HTML file with the data of a trace and the script that shows it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch

from sharnn.analysis.ablation import AblationTable
from sharnn.analysis.trace import AttentionTrace
from sharnn.errors import InputError
from sharnn.web.arrays import OCTAVES, STEP, pack, quantise
from sharnn.web.page import asset, shell, to_json

SHARED_SCRIPTS = "numbers bytes arrays colours pane dom".split()
SCRIPTS = "payload charts words tables explorer input kernel".split()
GUESSES = 5  # predictions stored for each target


def overview_edges(memory_limit: int) -> list[int]:
    """Returns the distances at which the bands of the overview start, about four per doubling.

    Args:
        memory_limit: M, the largest distance.

    Returns:
        The starts in order, followed by M + 1, the end of the last band.

    Example:
        >>> overview_edges(20)
        [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 16, 19, 21]
    """
    starts = {round(2 ** (n / 4)) for n in range(4 * math.ceil(math.log2(memory_limit + 1)))}
    return [*sorted(start for start in starts if start <= memory_limit), memory_limit + 1]


def last_targets(trace: AttentionTrace, count: int) -> AttentionTrace:
    """Returns a trace of the last ``count`` targets only, with the memory before them."""
    dropped = trace.num_targets - count
    first = trace.first + dropped
    begin = max(0, first - trace.memory_limit)
    return dataclasses.replace(
        trace,
        text=trace.text[begin:],
        first=first - begin,
        bits=trace.bits[begin:],
        weights={block: weights[dropped:] for block, weights in trace.weights.items()},
        num_visible=trace.num_visible[dropped:],
        probabilities=trace.probabilities[dropped:],
    )


def payload(
    trace: AttentionTrace,
    ablations: Mapping[int, AblationTable],
    about: str,
    title: str,
    megabytes: float,
) -> dict[str, Any]:
    """Returns the data of the page, with as many of the last targets as fit.

    Args:
        trace: the trace to show.
        ablations: an ablation table for each block that has the head.
        about: a line that describes the model.
        title: the title of the page, which counts towards its size.
        megabytes: maximum size of the page, in millions of bytes.

    Returns:
        Numbers, strings and packed arrays by name. ``notes`` states the precision of the weights
        and the number of targets that were dropped.

    Raises:
        InputError: even a page with a single target is too large, or ``megabytes`` is not
            positive.
    """
    if not megabytes > 0:
        raise InputError(f"megabytes must be greater than 0, got {megabytes}")
    total = count = trace.num_targets
    shell_size = _shell_size(title)
    while True:
        kept = last_targets(trace, count)
        content = _content(kept, ablations, total - count, about)
        size = (shell_size + len(to_json(content))) / 1e6
        if size <= megabytes:
            return content
        if count == 1:
            raise InputError(
                f"the page needs {size:.2f} MB for a single target: allow more than "
                f"{megabytes} megabytes or use a smaller memory limit"
            )
        count = max(1, min(count - 1, int(count * 0.97 * megabytes / size)))


def _content(
    trace: AttentionTrace, ablations: Mapping[int, AblationTable], dropped: int, about: str
) -> dict[str, Any]:
    """Returns the payload of a trace whose first ``dropped`` targets have been removed."""
    table = next(iter(ablations.values()))
    guesses = trace.probabilities.topk(min(GUESSES, trace.probabilities.shape[1]))
    notes = [
        "Weights are stored in 8 bits on a logarithmic scale: each is within "
        f"{100 * (2 ** (STEP / 2) - 1):.1f}% of the model's value, and weights below "
        f"2^-{OCTAVES} of the largest are shown as 0. All other numbers have full precision.",
        f"Random positions: mean and standard deviation over {table.draws} draws of the same "
        "number of positions.",
    ]
    if dropped:
        notes.append(
            f"To limit the size of the page, the first {dropped:,} of "
            f"{dropped + trace.num_targets:,} target bytes were dropped."
        )
    return {
        "about": about,
        "notes": notes,
        "memory_limit": trace.memory_limit,
        "first": trace.first,
        "num_targets": trace.num_targets,
        # Start with the target that depends most on its most attended positions.
        "initial_target": int(table.top[dropped:, -1].argmax()),
        "text": pack(torch.tensor(list(trace.text)), "uint8"),
        "bits": pack(trace.bits, "float32"),
        "num_visible": pack(trace.num_visible, "int32"),
        "guesses": pack(guesses.indices, "uint8"),
        "guess_probabilities": pack(guesses.values, "float32"),
        "overview_edges": overview_edges(trace.memory_limit),
        "counts": list(table.counts),
        "band_edges": [*(nearest for nearest, _ in table.bands), trace.memory_limit + 1],
        "heads": [
            _head(block, trace, ablations[block], dropped) for block in sorted(trace.weights)
        ],
    }


def _head(block: int, trace: AttentionTrace, table: AblationTable, dropped: int) -> dict[str, Any]:
    """Returns the payload of one head."""
    weights = trace.weights[block]  # (targets, memory)
    codes, log2_largest = quantise(weights)
    entropy = -(weights * weights.clamp(min=1e-30).log2()).sum(-1)  # (targets,) bits
    within = weights.cumsum(-1)  # (targets, memory) total weight up to each distance
    edges = torch.tensor(overview_edges(trace.memory_limit)) - 1
    sums = torch.cat([torch.zeros(len(weights), 1), within], dim=1)  # (targets, memory + 1)
    return {
        "block": block,
        "log2_largest": log2_largest,
        "step": STEP,
        "codes": pack(codes, "uint8"),
        "effective": pack(2**entropy, "float32"),  # effective number of positions
        "median": pack((within < 0.5).sum(-1) + 1, "int32"),
        "reach": pack((within < 0.9).sum(-1) + 1, "int32"),
        "mass": pack(sums[:, edges[1:]] - sums[:, edges[:-1]], "float32"),
        "top": pack(table.top[dropped:], "float32"),
        "random": pack(table.random[dropped:], "float32"),
        "random_std": pack(table.random_std[dropped:], "float32"),
        "by_band": pack(table.by_band[dropped:], "float32"),
    }


def page(content: Mapping[str, Any], title: str) -> str:
    """Returns the page: an HTML document that needs no other file and no network.

    Args:
        content: the data from `payload`.
        title: the document's title.
    """
    before, after = _shell(title)
    return f"{before}{to_json(content)}{after}"


def page_size(content: Mapping[str, Any], title: str) -> int:
    """Returns the size of `page` in bytes, without building it."""
    return _shell_size(title) + len(to_json(content))


def _shell(title: str) -> tuple[str, str]:
    """Returns the parts of the page before and after its data."""

    def text(name: str) -> str:
        return asset(name, "sharnn.analysis")

    scripts = [asset(f"{name}.js") for name in SHARED_SCRIPTS]
    scripts += [text(f"{name}.js") for name in SCRIPTS]
    style = asset("page.css") + text("explorer.css")
    return shell(title, style, text("explorer.html"), scripts)


def _shell_size(title: str) -> int:
    """Returns the size in bytes of the page without its data."""
    return sum(len(part.encode()) for part in _shell(title))
