"""``sharnn generate``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from sharnn.checkpoint import load
from sharnn.cli.parsers import Commands, device_option, model_argument, positive, threads_option
from sharnn.device import pick_device
from sharnn.inference.packed import STORAGES
from sharnn.inference.sampling import generate_batch, printable, stream
from sharnn.model import SHARNN


def add_commands(commands: Commands) -> None:
    """Adds ``sharnn generate``."""
    parser = commands.add(
        "generate",
        run_generate,
        "Continue a prompt.",
        model_argument(),
        device_option(),
        threads_option(),
    )
    parser.add_argument("--prompt", default="", help="text that the model continues")
    parser.add_argument("--length", type=int, default=500, help="number of bytes to generate")
    parser.add_argument(
        "--temperature", type=float, default=0.8, help="0 always takes the most likely byte"
    )
    parser.add_argument("--top-k", type=int, help="sample from the k most likely bytes")
    parser.add_argument(
        "--top-p",
        type=float,
        help="sample from the most likely bytes that together have this probability",
    )
    parser.add_argument("--seed", type=int, help="random seed; the same seed gives the same bytes")
    parser.add_argument(
        "--samples", type=positive, default=1, help="number of texts, generated in parallel"
    )
    parser.add_argument(
        "--weights",
        default="float32",
        choices=STORAGES,
        help="storage of the weights; int8 is faster for large models and several samples",
    )
    parser.add_argument("--raw", action="store_true", help="write bytes without conversion to text")


def run_generate(options: argparse.Namespace) -> int:
    """Executes ``sharnn generate``."""
    model = load(options.model, pick_device(options.device))
    prompt = os.fsencode(options.prompt)
    settings = (
        options.temperature,
        options.top_k,
        options.top_p,
        options.seed,
        options.weights,
    )
    if options.samples > 1:
        return _generate_several(model, prompt, options, settings)
    generated = stream(model, prompt, options.length, *settings)
    if options.raw:
        for byte in generated:
            sys.stdout.buffer.write(bytes([byte]))
            sys.stdout.buffer.flush()
        return 0
    for text in printable(prompt, generated):
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
    sys.stdout.buffer.write(b"\n")
    return 0


def _generate_several(
    model: SHARNN, prompt: bytes, options: argparse.Namespace, settings: tuple[Any, ...]
) -> int:
    """Prints several texts, each below a line with its number."""
    texts = generate_batch(model, [prompt] * options.samples, options.length, *settings)
    for number, text in enumerate(texts, start=1):
        shown = "".join(printable(prompt, iter(text))).encode()
        heading = f"--- {number} of {len(texts)}\n".encode()
        sys.stdout.buffer.write(heading + (prompt + text if options.raw else shown) + b"\n")
    return 0
