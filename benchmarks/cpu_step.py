"""Why a training step on the CPU does not reach the rate of a large matrix product.

``python -m benchmarks.cpu_step`` prints three times of a step: measured, of its products if each
ran at the rate of a large square one, and of its products at the rates of their own shapes. Then it
lists the kinds of work that take the rest. Needs a quiet machine.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

import torch

import sharnn
from benchmarks.entry import exit_code
from benchmarks.flops import training_flops
from benchmarks.gpu.profile import profiled, shares_of_kinds
from benchmarks.hardware import DTYPES, product_rate, products
from benchmarks.timing import in_turns, seconds_of
from benchmarks.writers import fill_memory
from sharnn.cli.parsers import Parser
from sharnn.device import keep_freed_memory
from sharnn.trainer import Trainer

REPEATS = 15
SQUARE = "square, 2048"


def full_trainer(preset: str, precision: str) -> Trainer:
    """Returns a trainer of a laptop preset with a full memory and segments of one length."""
    config = sharnn.ModelConfig.preset(preset)
    recipe = dataclasses.replace(
        sharnn.Recipe.preset(preset),
        short_segments=0.0,
        segment_jitter=0.0,
        precision=precision,
        device="cpu",
    )
    torch.manual_seed(0)
    corpus = sharnn.load_corpus("sample", sample_size=1_000_000)
    trainer = Trainer(sharnn.SHARNN(config), corpus, recipe)
    fill_memory(trainer)
    return trainer


def shares_of_flops(trainer: Trainer) -> dict[str, float]:
    """Returns the operations of a step by the shape of the product, named as in `products`."""
    config, recipe = trainer.model.config, trainer.recipe
    batch, time, rows = recipe.batch_size, recipe.segment_length, config.memory
    total = training_flops(config, batch, time, rows - recipe.segment_length)
    positions = batch * time
    recurrent = 3 * config.layers * 2 * positions * config.dim * 4 * config.dim
    query = 3 * config.head_count * 2 * positions * config.dim**2
    without_head = dataclasses.replace(config, attention_layers=())
    rest = training_flops(without_head, batch, time, rows - recipe.segment_length) - recurrent
    return {
        "Boom, or the input of an LSTM": rest,
        "one position of an LSTM": recurrent,
        "query": query,
        "scores over the memory": total - rest - recurrent - query,
    }


def run(words: Sequence[str]) -> int:
    """Measures and prints.

    Args:
        words: the words after the program's name.

    Returns:
        The exit code, 0.
    """
    parser = Parser(prog="python -m benchmarks.cpu_step", description=__doc__)
    parser.add_argument("--preset", default="small", choices=("tiny", "small", "medium"))
    parser.add_argument("--precision", default="bfloat16", choices=tuple(DTYPES))
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()
    trainer = full_trainer(options.preset, options.precision)
    config = trainer.model.config
    shapes = {SQUARE: ((2048, 2048), (2048, 2048)), **products(config.dim, config.memory)}
    dtype = DTYPES[options.precision]
    measures = {
        name: product_rate(torch.randn(left).to(dtype), torch.randn(right).to(dtype), 0.05)
        for name, (left, right) in shapes.items()
    }
    for _ in range(3):
        trainer.step()
    measures["step"] = lambda: seconds_of(trainer.step)
    found = in_turns(measures, REPEATS)
    step = min(found.pop("step"))
    rates = {name: max(values) for name, values in found.items()}
    flops = shares_of_flops(trainer)
    large = sum(flops.values()) / rates[SQUARE]
    own = {name: amount / rates[name] for name, amount in flops.items()}
    print(f"a step: {1000 * step:.1f} ms, the least of {REPEATS}")
    print(f"its products at {rates[SQUARE] / 1e9:,.0f} GFLOP/s: {1000 * large:.1f} ms,", end=" ")
    print(f"{large / step:.0%} of the step")
    print(f"its products at the rates of their shapes: {1000 * sum(own.values()):.1f} ms,", end=" ")
    print(f"{sum(own.values()) / step:.0%} of the step")
    for name, seconds in own.items():
        print(f"  {name:32} {rates[name] / 1e9:8,.0f} GFLOP/s {1000 * seconds:8.1f} ms")
    print("of the time, by kind of work:")
    for kind, share in shares_of_kinds(profiled(trainer)).items():
        print(f"  {kind:32} {share:8.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code("cpu_step", run))
