"""The command ``sharnn eval``."""

from __future__ import annotations

import argparse
import json

from sharnn.checkpoint import load
from sharnn.cli.data import open_corpus
from sharnn.cli.output import require_output_stream
from sharnn.cli.parsers import (
    Commands,
    data_option,
    device_option,
    memory_option,
    model_argument,
    positive,
    split_option,
    threads_option,
)
from sharnn.data import corpus_name
from sharnn.device import pick_device
from sharnn.errors import InputError
from sharnn.evaluate import bits_per_byte
from sharnn.io.byte_sources import open_files


def add_commands(commands: Commands) -> None:
    """Adds ``sharnn eval``."""
    parser = commands.add(
        "eval",
        run_eval,
        "Score a model on data, in bits per byte.",
        model_argument(),
        data_option("the data to score", required=True),
        split_option(),
        memory_option(),
        device_option(),
        threads_option(),
    )
    parser.add_argument(
        "--part",
        choices=("all", "train", "valid", "test"),
        help="part to score (default: test for a named corpus, all for files)",
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        help="number of streams (default: one per 100,000 bytes, from 1 to 8)",
    )
    parser.add_argument(
        "--segment-length",
        type=positive,
        help="bytes read at a time (default: 1024, or a quarter of --memory if that is less)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run_eval(options: argparse.Namespace) -> int:
    """Executes ``sharnn eval``."""
    require_output_stream()
    named = corpus_name(options.data)
    part = options.part or ("all" if named is None else "test")
    if part == "all" and named is not None:
        raise InputError(f"--part all is for files; for {named} choose train, valid or test")
    if part == "all" and options.split is not None:
        raise InputError("--split needs --part: choose train, valid or test")
    model = load(options.model, pick_device(options.device))
    if part == "all":
        name, data = " ".join(options.data), open_files(options.data)
    else:
        corpus = open_corpus(options.data, options.split)
        name, data = corpus.name, getattr(corpus, part)
    bits = bits_per_byte(
        model,
        data,
        batch_size=options.batch_size,
        segment_length=options.segment_length,
        memory_limit=options.memory,
    )
    size = len(data) - 1  # nothing predicts the first byte
    if options.json:
        print(json.dumps({"bits_per_byte": bits, "bytes": size, "data": name, "part": part}))
    else:
        print(f"{bits:.4f} bits per byte over {size:,} bytes")
    return 0
