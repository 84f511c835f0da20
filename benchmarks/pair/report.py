"""The pair's results as the block ``pair`` of README.md and other pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sharnn
from benchmarks.page_blocks import ROOT, markdown_table
from benchmarks.pair.records import TEXTS
from benchmarks.pair.runs import CONTENDERS
from benchmarks.pair.scores import MEMORY_LIMITS
from benchmarks.pair.shipping import NAMES

PAGES = (
    ROOT / "README.md",
    ROOT / "book" / "results.md",
    ROOT / "sharnn" / "pretrained" / "README.md",
)
BLOCK = "pair"  # name of the markers


def block(results: dict[str, Any]) -> str:
    """Returns the text between the markers: a table, and a sentence on how it was made.

    Args:
        results: the content of the results file.

    Raises:
        sharnn.InputError: no pair has been scored yet.
    """
    if not results["scores"]:
        raise sharnn.InputError("no pair has been scored yet: run score first")
    score = results["scores"][-1]
    header = ["bits per byte of test text", "parameters", *TEXTS]
    runs = [score["runs"][contender] for contender in CONTENDERS]
    size = score["data"]["training"]["bytes"]
    spent = " and ".join(
        f"`{NAMES[contender]}` for {run['cpu_seconds'] / 60:.0f} minutes "
        f"({run['bytes_read'] / size:.1f} passes)"
        for contender, run in zip(CONTENDERS, runs, strict=True)
    )
    seed = runs[0]["seed"]
    return markdown_table(header, _rows(score, results.get("baselines", {}))) + (
        "\nThe two models are a matched pair. They differ only in the head, and were trained\n"
        f"side by side on the same {size / 1e6:.2f} MB, each on one CPU thread, with seed {seed}:\n"
        f"{spent}.\n"
        f"± means two standard errors, from stretches of {score['stretch']:,} bytes of the text.\n"
        "The compressors were measured on the test text alone, and after the training text.\n"
    )


def _rows(score: dict[str, Any], baselines: dict[str, Any]) -> Iterator[list[str]]:
    texts = score["texts"]
    for name, results in baselines.items():
        for case in ("alone", "after training text"):
            title = case.replace("after", "after the")
            costs = [f"{results[text][case]:.3f}" for text in TEXTS]
            yield [f"`{name}`, {title}", "", *costs]

    def bits(name: str) -> list[str]:
        return [f"{texts[text]['bits_per_byte'][name]:.3f}" for text in TEXTS]

    for contender, name in reversed(NAMES.items()):
        count = f"{score['runs'][contender]['shipped_parameters']:,}"
        yield [f"`{name}`", count, *(f"**{number}**" for number in bits(contender))]
    worth = [texts[text]["differences"]["no-head"]["all"][0] for text in TEXTS]
    yield [
        "bits per byte saved by the head",
        "",
        *(f"**{_with_error(one)}**" for one in worth),
    ]
    for limit in MEMORY_LIMITS:
        rows = "row" if limit == 1 else "rows"
        yield [
            f"`{NAMES['head']}`, its memory cut to {limit:,} {rows}",
            "",
            *bits(f"head, memory {limit}"),
        ]
    for contender, name in reversed(NAMES.items()):
        learned = [
            f"{texts[text]['learn']['bits_per_byte'][contender]:.3f}"
            if "learn" in texts[text]
            else ""
            for text in TEXTS
        ]
        if any(learned):
            yield [f"`{name}`, which learns while it is tested", "", *learned]


def _with_error(difference: dict[str, Any]) -> str:
    """Returns a difference with two standard errors, which a short text lacks."""
    error = difference["error"]
    spread = "" if error is None else f" ± {2 * error:.3f}"
    return f"{difference['difference']:+.3f}{spread}"
