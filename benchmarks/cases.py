"""What a process of its own can measure: training, scoring, writing, and a matrix product.

Each case prepares everything, then measures a rate per second whenever it is asked.
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
from benchmarks.hardware import DTYPES, rate
from benchmarks.plain import PlainTrainer, plain_bits_per_byte, plain_from, plain_state
from benchmarks.writers import random_state, writer
from sharnn.trainer import Trainer

WRITES = 16  # bytes between two looks at the clock


@dataclass(frozen=True)
class Case:
    """Something to measure.

    Args:
        measure: measures once.
        facts: what JSON can hold and a reader should know.
    """

    measure: Callable[[], float]
    facts: dict[str, Any] = field(default_factory=dict)


def per_second(work: Callable[[], Any], amount: float, least_seconds: float) -> float:
    """How much is done a second by a piece of work that is repeated.

    Args:
        work: the piece.
        amount: how much one piece does.
        least_seconds: repeat for at least so long.

    Returns:
        The amount a second.
    """
    start, done = time.perf_counter(), 0.0
    while True:
        work()
        done += amount
        seconds = time.perf_counter() - start
        if seconds >= least_seconds:
            return done / seconds


def train(
    kind: str,
    model: dict[str, Any],
    recipe: dict[str, Any],
    precision: str,
    least_seconds: float,
    data: str = "sample",
    sample_size: int = 1_000_000,
) -> Case:
    """Bytes a second of training with a full memory.

    Args:
        kind: ``"library"`` or ``"plain"``.
        model: the configuration.
        recipe: changes of the recipe of the laptop presets.
        precision: as in `sharnn.Recipe`; the plain model computes bfloat16 by `torch.autocast`.
        least_seconds: of one measurement.
        data: what it learns from, a file or the sample.
        sample_size: bytes of the sample.

    Returns:
        The case.
    """
    config = sharnn.ModelConfig.from_dict(model)
    settings = dataclasses.replace(
        sharnn.Recipe.preset("small"),
        short_segments=0.0,  # each step reads equally many bytes
        segment_jitter=0.0,
        precision=precision,
        **recipe,
    )
    batch, time_ = settings.batch_size, settings.segment_length
    corpus = sharnn.load_corpus(data, sample_size=sample_size)
    network = sharnn.SHARNN(config)
    state = random_state(config, batch, config.memory - time_)
    trainer: Trainer | PlainTrainer
    if kind == "library":
        trainer = Trainer(network, corpus, settings)
        trainer.state = state
        precision = str(trainer.dtype).removeprefix("torch.")
    else:
        trainer = PlainTrainer(plain_from(network), corpus, settings)
        trainer.state = plain_state(state)
    trainer.step()
    flops = training_flops(config, batch, time_, config.memory - time_)
    facts = {"precision": precision, "flops_per_byte": flops / (batch * time_)}
    return Case(lambda: per_second(trainer.step, batch * time_, least_seconds), facts)


def score(kind: str, model: dict[str, Any], size: int) -> Case:
    """Bytes a second of scoring one stream.

    Args:
        kind: ``"library"`` or ``"plain"``.
        model: the configuration.
        size: bytes to score.

    Returns:
        The case.
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

    return Case(lambda: per_second(work, size, 0.0))


def write(kind: str, model: dict[str, Any], batch: int, least_seconds: float) -> Case:
    """Bytes a second of writing with a full memory.

    Args:
        kind: one of `benchmarks.writers.KINDS`.
        model: the configuration.
        batch: streams written side by side; their bytes are all counted.
        least_seconds: of one measurement.

    Returns:
        The case.
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
    return Case(lambda: per_second(work, WRITES * batch, least_seconds))


def product(precision: str, side: int, least_seconds: float) -> Case:
    """Operations a second of a large square matrix product.

    Args:
        precision: ``"float32"`` or ``"bfloat16"``.
        side: rows and columns.
        least_seconds: of one measurement.

    Returns:
        The case.
    """
    left, right = (torch.randn(side, side).to(DTYPES[precision]) for _ in range(2))
    return Case(rate(left, right, least_seconds))


CASES: dict[str, Callable[..., Case]] = {
    "train": train,
    "score": score,
    "write": write,
    "product": product,
}
