"""The command line: its commands, their options, and how a failure is told."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

import torch

import sharnn
from sharnn.analysis.explorer import MEGABYTES
from sharnn.checkpoint import STORAGES
from sharnn.cli.files import run_compress, run_convert, run_decompress, run_export
from sharnn.cli.parsers import Formatter, Parser, add_fields, positive
from sharnn.cli.training import (
    DEFAULT_PRESET,
    INTERRUPTED,
    fail,
    run_attention,
    run_data,
    run_eval,
    run_generate,
    run_paper,
    run_train,
)
from sharnn.config import PRESETS, ModelConfig
from sharnn.data import parse_split
from sharnn.errors import InputError
from sharnn.inference.packed import WEIGHTS
from sharnn.paper.reproduce import PUBLISHED
from sharnn.recipe import DEVICES, Recipe

NO_MEMORY = "out of memory: use a smaller model, batch_size, segment_length, memory or fewer lanes"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the words after ``sharnn``; None takes the process's own.

    Returns:
        The exit code: 0 for success, 2 for bad input, 1 for a run that failed, 130 for one that
        was interrupted.

    Example:
        >>> main(["eval", "nowhere", "--data", "x"])
        2
    """
    try:
        options = _parser().parse_args(arguments)
        if getattr(options, "threads", None) is not None:
            torch.set_num_threads(options.threads)
        code: int = options.command(options)
        if sys.stdout is not None:  # it may be closed
            sys.stdout.flush()
        return code
    except InputError as error:
        return fail(str(error), 2)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (MemoryError, torch.cuda.OutOfMemoryError):
        return fail(NO_MEMORY, 1, alone=True)
    except OSError as error:
        return fail(str(error), 1, alone=True)
    except RuntimeError as error:
        if "alloc" not in str(error):
            raise
        return fail(NO_MEMORY, 1, alone=True)  # how torch says so on the CPU


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sharnn", description="SHA-RNN: a byte-level language model.")
    parser.add_argument("--version", action="version", version=f"sharnn {sharnn.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Parser:
        added = commands.add_parser(name, help=text, description=text, formatter_class=Formatter)
        added.set_defaults(command=run)
        return added

    data = command("data", run_data, "Fetch, verify and describe a corpus.")
    data.add_argument("source", nargs="+", metavar="enwik8|sample|FILE", help="the corpus")
    data.add_argument("--split", type=parse_split, help="shares or byte counts, like 0.9,0.05,0.05")

    training = command("train", run_train, "Train a model, or go on with a run.")
    training.add_argument("--data", nargs="+", metavar="enwik8|sample|FILE", help="the corpus")
    training.add_argument(
        "--split",
        type=parse_split,
        help="shares or byte counts; 0.9,0.05,0.05 where none are given",
    )
    training.add_argument(
        "--preset", help=f"model and recipe: {', '.join(PRESETS)} (default: {DEFAULT_PRESET})"
    )
    training.add_argument("--out", metavar="RUN", help="the folder of a new run")
    training.add_argument(
        "--init", metavar="MODEL", help="start from its weights, with its shape: run, file or name"
    )
    training.add_argument("--resume", metavar="RUN", help="go on with this run")
    training.add_argument("--quiet", action="store_true", help="no progress bar")
    training.add_argument("--tensorboard", action="store_true", help="also write its events")
    training.add_argument("--threads", type=positive, help="CPU threads; torch's choice")
    values = f"(in brackets {DEFAULT_PRESET}'s values)"
    add_fields(training, f"model {values}", ModelConfig.preset(DEFAULT_PRESET))
    add_fields(training, f"recipe {values}", Recipe.preset(DEFAULT_PRESET))

    paper = command("paper", run_paper, "Train the paper's model to the end, and score it.")
    paper.add_argument(
        "--data", nargs="+", metavar="enwik8|sample|FILE", help="the corpus; enwik8 unless given"
    )
    paper.add_argument("--split", type=parse_split, help="as in train")
    paper.add_argument("--preset", default="paper", choices=PUBLISHED, help="which of its models")
    paper.add_argument(
        "--out", default="runs/paper", metavar="RUN", help="its folder; one with a run goes on"
    )
    paper.add_argument(
        "--keep", metavar="FOLDER", help="keep copies of the run there, and take them up again"
    )
    paper.add_argument("--keep-minutes", type=float, default=20, help="time between copies")
    paper.add_argument(
        "--dry-run", action="store_true", help="a few steps only, of the sample unless --data"
    )
    paper.add_argument("--quiet", action="store_true", help="no progress bar")
    paper.add_argument("--tensorboard", action="store_true", help="also write its events")
    paper.add_argument("--threads", type=positive, help="CPU threads; torch's choice")
    add_fields(paper, "model, to try with less (in brackets the paper's)", ModelConfig())
    add_fields(paper, "recipe (in brackets the paper's)", Recipe())

    evaluation = command("eval", run_eval, "Measure bits per byte.")
    evaluation.add_argument("model", metavar="MODEL", help="run folder, .safetensors file or name")
    evaluation.add_argument(
        "--data", required=True, nargs="+", metavar="enwik8|sample|FILE", help="what to score"
    )
    evaluation.add_argument(
        "--part",
        choices=("all", "train", "valid", "test"),
        help="which part of the split; without it a file is scored whole, enwik8 on its test part",
    )
    evaluation.add_argument("--split", type=parse_split, help="as in train")
    evaluation.add_argument("--memory", type=positive, help="rows a query may see; the model's")
    evaluation.add_argument("--batch-size", type=positive, help="streams; 1 to 8 by size")
    evaluation.add_argument("--segment-length", type=positive, help="bytes read at a time")
    evaluation.add_argument("--json", action="store_true", help="print one JSON object")
    evaluation.add_argument("--device", default="auto", choices=DEVICES, help="where to compute")
    evaluation.add_argument("--threads", type=positive, help="CPU threads; torch's choice")

    writing = command("generate", run_generate, "Continue a prompt.")
    writing.add_argument("model", metavar="MODEL", help="run folder, .safetensors file or name")
    writing.add_argument("--prompt", default="", help="what the model reads first")
    writing.add_argument("--length", type=int, default=500, help="bytes to write")
    writing.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest")
    writing.add_argument("--top-k", type=int, help="draw from the k likeliest bytes")
    writing.add_argument("--top-p", type=float, help="draw from this much probability")
    writing.add_argument("--seed", type=int, help="the same seed writes the same bytes")
    writing.add_argument(
        "--samples", type=positive, default=1, help="texts written side by side, each of its own"
    )
    writing.add_argument(
        "--weights",
        default="float32",
        choices=WEIGHTS,
        help="int8 is faster for large models and several samples",
    )
    writing.add_argument("--raw", action="store_true", help="write the bytes as they are")
    writing.add_argument("--device", default="auto", choices=DEVICES, help="where to compute")
    writing.add_argument("--threads", type=positive, help="CPU threads; torch's choice")

    packing = command("compress", run_compress, "Compress a file with a model's predictions.")
    packing.add_argument("model", metavar="MODEL", help="run folder, .safetensors file or name")
    packing.add_argument("input", metavar="IN", help="any file; - is standard input")
    packing.add_argument("output", metavar="OUT", help="the file to write; - is standard output")
    packing.add_argument(
        "--lanes", type=positive, help="pieces coded side by side; 1 to 64 by size"
    )
    packing.add_argument(
        "--learn", action="store_true", help="go on training meanwhile: smaller, slower"
    )
    packing.add_argument("--quiet", action="store_true", help="no progress bar, no sizes")

    unpacking = command("decompress", run_decompress, "Give back a file that was compressed.")
    unpacking.add_argument("model", metavar="MODEL", help="the model it was compressed with")
    unpacking.add_argument("input", metavar="IN", help="from compress; - is standard input")
    unpacking.add_argument("output", metavar="OUT", help="the file to write; - is standard output")
    unpacking.add_argument("--quiet", action="store_true", help="no progress bar, no sizes")

    exporting = command("export", run_export, "Write a model as ONNX, or in smaller storage.")
    exporting.add_argument("model", metavar="MODEL", help="run folder, .safetensors file or name")
    exporting.add_argument("output", metavar="OUT", help="OUT.onnx or OUT.safetensors")
    exporting.add_argument(
        "--weights",
        default="float32",
        choices=STORAGES,
        help="int8 takes a quarter of the bytes; float16 is for .safetensors",
    )

    converting = command("convert", run_convert, "Read a checkpoint of the author's code.")
    converting.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="state dict of torch.save, .safetensors or .npz"
    )
    converting.add_argument("output", metavar="OUT.safetensors", help="the model to write")
    converting.add_argument("--memory", type=positive, default=5000, help="rows a query may see")
    converting.add_argument("--dropout", type=float, default=0.1, help="for training it further")

    looking = command("attention", run_attention, "Show where the heads look, as one HTML page.")
    looking.add_argument("model", metavar="MODEL", help="run folder, .safetensors file or name")
    looking.add_argument(
        "--data",
        required=True,
        nargs="+",
        metavar="enwik8|sample|FILE",
        help="what to read; of enwik8 the test part",
    )
    looking.add_argument("--out", required=True, metavar="PAGE.html", help="the page to write")
    looking.add_argument("--watched", type=positive, default=1024, help="bytes to choose from")
    looking.add_argument(
        "--start", type=positive, help="place of the first of them; after a full memory"
    )
    looking.add_argument("--memory", type=positive, help="rows a query may see; the model's")
    looking.add_argument(
        "--megabytes",
        type=float,
        default=MEGABYTES,
        help="the page's largest size; drops watched bytes",
    )
    looking.add_argument(
        "--survey", metavar="FIGURE.png", help="also draw where the heads look over the whole data"
    )
    looking.add_argument("--device", default="auto", choices=DEVICES, help="where to compute")
    looking.add_argument("--threads", type=positive, help="CPU threads; torch's choice")
    return parser
