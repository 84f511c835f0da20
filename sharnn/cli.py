"""The command line: ``sharnn data``, ``train``, ``eval``, ``generate`` and ``attention``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import sharnn
from sharnn.checkpoint import load
from sharnn.config import PRESETS, ModelConfig
from sharnn.data import Corpus, Split, load_corpus, open_files, parse_split
from sharnn.device import pick_device
from sharnn.errors import InputError
from sharnn.evaluate import bits_per_byte
from sharnn.explorer import MEGABYTES, explore
from sharnn.flags import Formatter, Parser, add_fields, changes, positive
from sharnn.generate import generate_batch, printable, stream
from sharnn.model import SHARNN
from sharnn.packed import WEIGHTS
from sharnn.plots import check_picture_name, save_picture
from sharnn.ranks import Ranks, joined, started_rank
from sharnn.recipe import DEVICES, Recipe
from sharnn.run import SETTINGS, Result
from sharnn.survey import survey
from sharnn.survey_plots import survey_figure
from sharnn.training import resume, train

DEFAULT_PRESET = "small"
NAMED = (["enwik8"], ["sample"])  # everything else is a file
INTERRUPTED = 130
NO_MEMORY = "out of memory: use a smaller model, batch_size, segment_length or memory"


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
        code: int = options.command(options)
        sys.stdout.flush()
        return code
    except InputError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (MemoryError, torch.OutOfMemoryError):
        return _fail(NO_MEMORY, 1, alone=True)
    except OSError as error:
        return _fail(str(error), 1, alone=True)
    except RuntimeError as error:
        if "alloc" not in str(error):
            raise
        return _fail(NO_MEMORY, 1, alone=True)  # how torch says so on the CPU


def _fail(message: str, code: int, alone: bool = False) -> int:
    """Says what went wrong. Of several processes the first speaks, or one that failed alone."""
    rank = started_rank()
    if rank == 0 or alone:
        who = f"process {rank}: " if rank else ""
        print("sharnn: " + who + " ".join(message.split()), file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sharnn", description="SHA-RNN: a byte-level language model.")
    parser.add_argument("--version", action="version", version=f"sharnn {sharnn.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Parser:
        added = commands.add_parser(name, help=text, description=text, formatter_class=Formatter)
        added.set_defaults(command=run)
        return added

    data = command("data", _data, "Fetch, verify and describe a corpus.")
    data.add_argument("source", nargs="+", metavar="enwik8|sample|FILE", help="the corpus")
    data.add_argument("--split", type=parse_split, help="shares or byte counts, like 0.9,0.05,0.05")

    training = command("train", _train, "Train a model, or go on with a run.")
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
    training.add_argument("--resume", metavar="RUN", help="go on with this run")
    training.add_argument("--quiet", action="store_true", help="no progress bar")
    training.add_argument("--tensorboard", action="store_true", help="also write its events")
    training.add_argument("--threads", type=positive, help="CPU threads; torch's choice")
    values = f"(in brackets {DEFAULT_PRESET}'s values)"
    add_fields(training, f"model {values}", ModelConfig.preset(DEFAULT_PRESET))
    add_fields(training, f"recipe {values}", Recipe.preset(DEFAULT_PRESET))

    evaluation = command("eval", _eval, "Measure bits per byte.")
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

    writing = command("generate", _generate, "Continue a prompt.")
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

    looking = command("attention", _attention, "Show where the heads look, as one HTML page.")
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


def _data(options: argparse.Namespace) -> int:
    corpus = _corpus(options.source, options.split)
    print(corpus.describe())
    return 0 if corpus.notice is None else 1


def _corpus(source: list[str], split: Split | None) -> Corpus:
    """The corpus that words on the command line name."""
    return load_corpus(source[0] if source in NAMED else source, split)


def _train(options: argparse.Namespace) -> int:
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    show = {"progress": not options.quiet, "tensorboard": options.tensorboard}
    model_changes, recipe_changes = changes(options, ModelConfig), changes(options, Recipe)
    # The first limit given replaces the preset's.
    limits = {"steps", "epochs", "minutes"}
    if limits & recipe_changes.keys():
        recipe_changes = {**dict.fromkeys(limits - recipe_changes.keys()), **recipe_changes}
    if options.resume is not None:
        if options.out is not None and Path(options.out) != Path(options.resume):
            raise InputError("a resumed run stays in its folder: leave out --out")
        if options.preset is not None:
            raise InputError("--preset is for new runs: a resumed run keeps its model and recipe")
        if model_changes:
            raise InputError(f"--{next(iter(model_changes))} can't change when a run is resumed")
        with joined() as ranks:
            source, split = ranks.first(lambda: _recorded_data(options))
            corpus = ranks.in_turn(lambda: _quiet_corpus(ranks, source, split))
            result = resume(options.resume, corpus, recipe_changes, **show)
            return _finish(result, options.resume, ranks)
    if options.data is None or options.out is None:
        raise InputError("train needs --data and --out, or --resume (see sharnn train --help)")
    preset = options.preset or DEFAULT_PRESET
    config = dataclasses.replace(ModelConfig.preset(preset), **model_changes)
    recipe = dataclasses.replace(Recipe.preset(preset), **recipe_changes)
    # Absolute paths, so that the run can be resumed from another folder.
    source = [str(Path(word).resolve()) if Path(word).is_file() else word for word in options.data]
    settings = {"data": source, "split": options.split, "preset": preset}
    with joined() as ranks:
        corpus = ranks.in_turn(lambda: _quiet_corpus(ranks, options.data, options.split))
        result = train(config, corpus, recipe, options.out, settings=settings, **show)
        return _finish(result, options.out, ranks)


def _quiet_corpus(ranks: Ranks, source: list[str], split: Split | None) -> Corpus:
    """The corpus; what there is to say about it is said once."""
    nowhere = contextlib.redirect_stderr(io.StringIO())
    with contextlib.nullcontext() if ranks.is_first else nowhere:
        return _corpus(source, split)


def _recorded_data(options: argparse.Namespace) -> tuple[list[str], Split | None]:
    """The data a run was started with, unless others are given."""
    if options.data is not None:
        return options.data, options.split
    path = Path(options.resume) / SETTINGS
    try:
        settings = json.loads(path.read_text())
        split = settings["split"]
        return settings["data"], tuple(split) if split is not None else None
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} doesn't say what data the run used: give --data") from error


def _finish(result: Result, folder: str, ranks: Ranks) -> int:
    """Says how a run ended."""
    if result.reason == "done":
        if ranks.is_first:
            print(f"{result.message}; saved in {folder}")
        return 0
    command = "sharnn" if ranks.count == 1 else "torchrun ... -m sharnn"
    saved = f"saved in {folder}, go on with: {command} train --resume {folder}"
    return _fail(f"{result.message}; {saved}", INTERRUPTED if result.reason == "interrupted" else 1)


def _eval(options: argparse.Namespace) -> int:
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    model = load(options.model, pick_device(options.device))
    named = options.data in NAMED
    part = options.part or ("test" if named else "all")
    if part == "all" and named:
        raise InputError(
            f"--part all scores files; for {options.data[0]} choose train, valid or test"
        )
    if part == "all":
        name, data = " ".join(options.data), open_files(options.data)
    else:
        corpus = _corpus(options.data, options.split)
        name, data = corpus.name, getattr(corpus, part)
    bits = bits_per_byte(
        model,
        data,
        batch_size=options.batch_size,
        segment_length=options.segment_length,
        memory=options.memory,
    )
    size = len(data) - 1  # nothing predicts the first byte
    if options.json:
        print(json.dumps({"bits_per_byte": bits, "bytes": size, "data": name, "part": part}))
    else:
        print(f"{bits:.4f} bits per byte over {size:,} bytes")
    return 0


def _generate(options: argparse.Namespace) -> int:
    if options.threads is not None:
        torch.set_num_threads(options.threads)
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
    written = stream(model, prompt, options.length, *settings)
    if options.raw:
        for byte in written:
            sys.stdout.buffer.write(bytes([byte]))
            sys.stdout.buffer.flush()
        return 0
    for text in printable(prompt, written):
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
    sys.stdout.buffer.write(b"\n")
    return 0


def _generate_several(
    model: SHARNN, prompt: bytes, options: argparse.Namespace, settings: tuple[Any, ...]
) -> int:
    """Writes texts one below the other, each under a line with its number."""
    texts = generate_batch(model, [prompt] * options.samples, options.length, *settings)
    for number, text in enumerate(texts, start=1):
        shown = "".join(printable(prompt, iter(text))).encode()
        heading = f"--- {number} of {len(texts)}\n".encode()
        sys.stdout.buffer.write(heading + (prompt + text if options.raw else shown) + b"\n")
    return 0


def _attention(options: argparse.Namespace) -> int:
    # What would stop it at the end is looked at first: a survey takes its time.
    places = [Path(place) for place in (options.out, options.survey) if place is not None]
    for place in places:
        if not place.absolute().parent.is_dir() or place.is_dir():
            raise InputError(f"can't write {place}: it is a folder, or is in none")
    if options.survey is not None:
        check_picture_name(places[1])
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    model = load(options.model, pick_device(options.device))
    named = options.data in NAMED
    data = _corpus(options.data, None).test if named else open_files(options.data)
    explorer = explore(
        model,
        data,
        watched=options.watched,
        start=options.start,
        memory=options.memory,
        name=Path(options.model).stem,
        megabytes=options.megabytes,
    )
    if options.survey is not None:
        save_picture(survey_figure(survey(model, data, memory=options.memory)), places[1])
    path = explorer.save(places[0])
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    for note in explorer.content["notes"]:
        print(note)
    if options.survey is not None:
        print(options.survey)
    return 0
