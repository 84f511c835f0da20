"""The cases that a `benchmarks.worker.Worker` measures: training, scoring, writing, a product.

Each function prepares one case and returns it; the case then measures a rate per second, as often
as it is called.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

import sharnn
from benchmarks.flops import training_flops
from benchmarks.hardware import DTYPES, product_rate
from benchmarks.plain import PlainTrainer, plain_bits_per_byte, plain_from, to_plain_state
from benchmarks.writers import fill_memory, random_state, writer
from sharnn import Trainer
from sharnn.device import keep_freed_memory

WRITES = 16  # bytes written between two readings of the clock


@dataclass(frozen=True)
class Case:
    """A prepared measurement.

    Args:
        measure: measures once and returns a rate per second.
        facts: details of the case that belong in the results, as values that JSON can represent.
    """

    measure: Callable[[], float]
    facts: dict[str, Any] = field(default_factory=dict)


def rate_of(work: Callable[[], Any], amount: float, min_seconds: float) -> float:
    """Repeats a piece of work and returns the amount done per second.

    Args:
        work: the piece of work.
        amount: amount that one call does.
        min_seconds: minimum duration; at least one call is made.
    """
    start, total = time.perf_counter(), 0.0
    while True:
        work()
        total += amount
        seconds = time.perf_counter() - start
        if seconds >= min_seconds:
            return total / seconds


def train(
    kind: str,
    model: dict[str, Any],
    recipe: dict[str, Any],
    precision: str,
    min_seconds: float,
    data: str = "sample",
    sample_size: int = 1_000_000,
) -> Case:
    """Prepares training with a full memory, in bytes per second.

    The library's process keeps freed memory, as `sharnn train` does. The plain one doesn't.

    Args:
        kind: ``"library"`` or ``"plain"``.
        model: the model's configuration.
        recipe: changes to the recipe of the preset ``"small"``.
        precision: as in `sharnn.Recipe`; the plain model uses `torch.autocast` for bfloat16.
        min_seconds: minimum duration of one measurement.
        data: training text, a file or ``"sample"``.
        sample_size: size of the sample, in bytes.
    """
    config = sharnn.ModelConfig.from_dict(model)
    settings = dataclasses.replace(
        sharnn.Recipe.preset("small"),
        short_segments=0.0,  # every step reads the same number of bytes
        segment_jitter=0.0,
        precision=precision,
        **recipe,
    )
    batch, time_ = settings.batch_size, settings.segment_length
    corpus = sharnn.load_corpus(data, stand_in=False, sample_size=sample_size)
    network = sharnn.SHARNN(config)
    trainer: Trainer | PlainTrainer
    if kind == "library":
        keep_freed_memory()
        trainer = Trainer(network, corpus, settings)
        fill_memory(trainer)
        precision = str(trainer.dtype).removeprefix("torch.")
    else:
        trainer = PlainTrainer(plain_from(network), corpus, settings)
        trainer.state = to_plain_state(random_state(config, batch, config.memory - time_))
    trainer.step()
    flops = training_flops(config, batch, time_, config.memory - time_)
    facts = {"precision": precision, "flops_per_byte": flops / (batch * time_)}
    return Case(lambda: rate_of(trainer.step, batch * time_, min_seconds), facts)


def score(kind: str, model: dict[str, Any], size: int) -> Case:
    """Prepares scoring of one stream, in bytes per second.

    Args:
        kind: ``"library"`` or ``"plain"``.
        model: the model's configuration.
        size: number of bytes to score.
    """
    config = sharnn.ModelConfig.from_dict(model)
    network = sharnn.SHARNN(config)
    data = sharnn.load_corpus("sample", sample_size=4 * size).train[:size].tobytes()
    segment = min(1024, config.memory // 4)
    if kind == "library":

        def work() -> None:
            sharnn.bits_per_byte(network, data, batch_size=1, segment_length=segment)
    else:
        plain = plain_from(network)

        def work() -> None:
            plain_bits_per_byte(plain, data, segment)

    return Case(lambda: rate_of(work, size, 0.0))


def write(kind: str, model: dict[str, Any], batch: int, min_seconds: float) -> Case:
    """Prepares writing with a full memory, in bytes per second.

    Args:
        kind: one of `benchmarks.writers.KINDS`.
        model: the model's configuration.
        batch: number of streams written in parallel; the rate counts the bytes of all of them.
        min_seconds: minimum duration of one measurement.
    """
    config = sharnn.ModelConfig.from_dict(model)
    network = sharnn.SHARNN(config).eval()
    step = writer(kind, network, random_state(config, batch, config.memory))
    symbols = torch.full((batch,), 65)

    def work() -> None:
        nonlocal symbols
        with torch.no_grad():
            for _ in range(WRITES):
                logits = step(symbols)  # (batch, vocab_size)
                symbols = torch.multinomial(torch.softmax(logits, -1), 1)[:, 0]

    work()
    return Case(lambda: rate_of(work, WRITES * batch, min_seconds))


def product(precision: str, side: int, min_seconds: float) -> Case:
    """Prepares a large square matrix product, in floating point operations per second.

    Args:
        precision: ``"float32"`` or ``"bfloat16"``.
        side: number of rows, and of columns.
        min_seconds: approximate duration of one measurement.
    """
    left, right = (torch.randn(side, side).to(DTYPES[precision]) for _ in range(2))
    return Case(product_rate(left, right, min_seconds))


CASES: dict[str, Callable[..., Case]] = {
    "train": train,
    "score": score,
    "write": write,
    "product": product,
}
