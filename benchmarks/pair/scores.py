"""Scores of a pair on the test texts: bits per byte, and paired differences with their spread."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import sharnn
from benchmarks.machine import machine
from benchmarks.pair.records import cut_curve, describe_run, read_curve
from benchmarks.pair.runs import without_folders
from benchmarks.pair.shipping import load_final
from benchmarks.pair.texts import PairTexts
from sharnn.analysis.comparison import STRETCH, Difference, compare
from sharnn.analysis.curves import thin
from sharnn.compression.codec import bits_in_archive, default_num_streams
from sharnn.evaluate import bits_of_bytes

MEMORY_LIMITS = (1024, 256, 50, 1)


def score_pair(
    pair: dict[str, Path],
    texts: PairTexts,
    *,
    size: int | None = None,
    learn: bool = False,
    stretch: int = STRETCH,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Scores both models, as they ship, on the test texts, each read in one stream.

    Args:
        pair: run folders by contender.
        texts: the texts, on which both were trained.
        size: number of bytes of each test text, from its start; None for all.
        learn: also score both as they keep training on the first text, as `sharnn compress --learn`
            does, in its default number of streams.
        stretch: bytes of a stretch, the unit of the standard errors.
        command: the words of the command line, to be recorded.

    Returns:
        The entry for the results file. A positive difference is in favour of the model with a head
        and its whole memory.

    Raises:
        sharnn.InputError: the runs were trained on other texts, or a model is damaged.
    """
    runs = {}
    for contender, folder in pair.items():
        facts = describe_run(folder)
        if facts["fingerprint"] != texts.corpus.fingerprint:
            raise sharnn.InputError(f"{folder} was trained on other texts than these")
        decay = cut_curve(
            read_curve(folder), facts["decay_start"] or facts["steps"], facts["steps"]
        )
        runs[contender] = {**facts, "decay": thin(decay)}
    models = {contender: load_final(folder) for contender, folder in pair.items()}
    for contender, model in models.items():
        runs[contender]["shipped_parameters"] = model.parameter_count()
    tests = texts.tests(size)
    results = {name: _score_text(models, text, stretch) for name, text in tests.items()}
    if learn:
        name = next(iter(tests))
        results[name]["learn"] = _score_learning(models, tests[name], stretch)
    return {
        "command": without_folders(command),
        "machine": machine(),
        "stretch": stretch,
        "data": texts.facts(),
        "runs": runs,
        "texts": results,
    }


def _score_text(models: dict[str, sharnn.SHARNN], text: bytes, stretch: int) -> dict[str, Any]:
    """Returns bits per byte and differences to the model with a head, on one text."""
    bits = {name: bits_of_bytes(model, text, batch_size=1) for name, model in models.items()}
    for limit in MEMORY_LIMITS:
        bits[f"head, memory {limit}"] = bits_of_bytes(
            models["head"], text, batch_size=1, memory_limit=limit
        )
    return {"bytes": len(text) - 1, **_summary(text, bits, stretch)}


def _score_learning(models: dict[str, sharnn.SHARNN], text: bytes, stretch: int) -> dict[str, Any]:
    """Returns the same for models that keep training, without the cost of the first byte."""
    bits = {
        name: torch.from_numpy(bits_in_archive(model, text, learn=True)[1:])
        for name, model in models.items()
    }
    return {"streams": default_num_streams(len(text)), **_summary(text, bits, stretch)}


def _summary(text: bytes, bits: dict[str, torch.Tensor], stretch: int) -> dict[str, Any]:
    """Returns the mean of each kind of bits, and the differences of all others to the head's."""
    return {
        "bits_per_byte": {name: own.double().mean().item() for name, own in bits.items()},
        "differences": {
            name: {
                by: [to_json(difference) for difference in differences if difference.count]
                for by, differences in compare(text, bits["head"], own, stretch).items()
            }
            for name, own in bits.items()
            if name != "head"
        },
    }


def to_json(difference: Difference) -> dict[str, Any]:
    """Returns a difference as values that JSON can represent: None for NaN.

    Example:
        >>> to_json(Difference("digit", 1, 2.0, 3.0, 1.0, math.nan))["error"] is None
        True
    """
    values = dataclasses.asdict(difference)
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in values.items()
    }


def from_json(values: dict[str, Any]) -> Difference:
    """Returns the difference that `to_json` wrote."""
    numbers: dict[str, Any] = {
        name: math.nan if value is None else value for name, value in values.items()
    }
    return Difference(**numbers)
