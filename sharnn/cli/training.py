"""What each command of the command line does with its options; it returns the exit code."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

from sharnn.analysis.explorer import explore
from sharnn.analysis.figures import survey_figure
from sharnn.analysis.statistics import survey
from sharnn.checkpoint import load, require_writable
from sharnn.cli.parsers import changes
from sharnn.config import ModelConfig
from sharnn.data import Corpus, Split, load_corpus, open_files
from sharnn.device import pick_device
from sharnn.distributed import Ranks, joined, started_rank
from sharnn.enwik8 import enwik8_path
from sharnn.errors import InputError
from sharnn.evaluate import bits_per_byte
from sharnn.inference.sampling import generate_batch, printable, stream
from sharnn.model import SHARNN
from sharnn.paper.backup import Keeper
from sharnn.paper.reproduce import reproduce
from sharnn.plots import check_picture_name, save_picture
from sharnn.recipe import Recipe
from sharnn.run import SETTINGS, Result
from sharnn.training import resume, train

DEFAULT_PRESET = "small"
NAMED = (["enwik8"], ["sample"])  # everything else is a file
INTERRUPTED = 130
# A trial of the paper's run: a few steps on the way that the whole run takes.
TRIAL = {"steps": 4, "checkpoint_every": 2, "eval_every": 2, "log_every": 1}
TRIAL_BYTES = 20_000  # scored in validation and in the test


def fail(message: str, code: int, alone: bool = False) -> int:
    """Says what went wrong. Of several processes the first speaks, or one that failed alone.

    Args:
        message: what; line breaks become spaces.
        code: the exit code.
        alone: speak whichever process this is.

    Returns:
        The exit code.
    """
    rank = started_rank()
    if rank == 0 or alone:
        who = f"process {rank}: " if rank else ""
        print("sharnn: " + who + " ".join(message.split()), file=sys.stderr)
    return code


def run_data(options: argparse.Namespace) -> int:
    """``sharnn data``."""
    corpus = _corpus(options.source, options.split)
    print(corpus.describe())
    return 0 if corpus.notice is None else 1


def _corpus(source: list[str], split: Split | None) -> Corpus:
    """The corpus that words on the command line name."""
    return load_corpus(source[0] if source in NAMED else source, split)


def run_train(options: argparse.Namespace) -> int:
    """``sharnn train``."""
    show = {"progress": not options.quiet, "tensorboard": options.tensorboard}
    model_changes, recipe_changes = changes(options, ModelConfig), changes(options, Recipe)
    recipe_changes = _with_limits(recipe_changes)
    if options.resume is not None:
        if options.out is not None and Path(options.out) != Path(options.resume):
            raise InputError("a resumed run stays in its folder: leave out --out")
        if options.init is not None:
            raise InputError("--init is for new runs: a resumed run goes on with its own weights")
        if options.preset is not None:
            raise InputError("--preset is for new runs: a resumed run keeps its model and recipe")
        if model_changes:
            raise InputError(f"--{next(iter(model_changes))} can't change when a run is resumed")
        with joined() as ranks:
            source, split = ranks.first(lambda: _recorded_data(options))
            corpus = ranks.in_turn(lambda: _quiet_corpus(ranks, source, split))
            result = resume(options.resume, corpus, recipe_changes, **show)
            return _finish(result, options.resume, ranks, _resuming(options.resume, ranks))
    if options.data is None or options.out is None:
        raise InputError("train needs --data and --out, or --resume (see sharnn train --help)")
    preset = options.preset or DEFAULT_PRESET
    initial = load(options.init) if options.init is not None else None
    shape = ModelConfig.preset(preset) if initial is None else initial.config
    config = dataclasses.replace(shape, **model_changes)
    recipe = dataclasses.replace(Recipe.preset(preset), **recipe_changes)
    settings = {**_recordable(options.data, options.split), "preset": preset}
    if options.init is not None:
        settings["init"] = options.init
    with joined() as ranks:
        corpus = ranks.in_turn(lambda: _quiet_corpus(ranks, options.data, options.split))
        result = train(
            config, corpus, recipe, options.out, initial=initial, settings=settings, **show
        )
        return _finish(result, options.out, ranks, _resuming(options.out, ranks))


def _with_limits(recipe_changes: dict[str, Any]) -> dict[str, Any]:
    """Changes of a recipe in which the limits that were given replace all of the preset's."""
    limits = {"steps", "epochs", "minutes"}
    if not limits & recipe_changes.keys():
        return recipe_changes
    return {**dict.fromkeys(limits - recipe_changes.keys()), **recipe_changes}


def _quiet_corpus(ranks: Ranks, source: list[str], split: Split | None) -> Corpus:
    """The corpus; what there is to say about it is said once."""
    nowhere = contextlib.redirect_stderr(io.StringIO())
    with contextlib.nullcontext() if ranks.is_first else nowhere:
        return _corpus(source, split)


def _recordable(source: list[str], split: Split | None) -> dict[str, Any]:
    """What a run writes down of its data; absolute, to be resumed from another folder."""
    paths = [str(Path(word).resolve()) if Path(word).is_file() else word for word in source]
    return {"data": paths, "split": split}


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


def _resuming(folder: str, ranks: Ranks) -> str:
    """How a run of ``sharnn train`` is gone on with."""
    command = "sharnn" if ranks.count == 1 else "torchrun ... -m sharnn"
    return f"go on with: {command} train --resume {folder}"


def _finish(result: Result, folder: str, ranks: Ranks, again: str) -> int:
    """Says how a run ended, and where it was cut how to go on."""
    if result.reason == "done":
        if ranks.is_first:
            print(f"{result.message}; saved in {folder}")
        return 0
    code = INTERRUPTED if result.reason == "interrupted" else 1
    return fail(f"{result.message}; saved in {folder}, {again}", code)


def run_paper(options: argparse.Namespace) -> int:
    """``sharnn paper``."""
    model_changes, recipe_changes = changes(options, ModelConfig), changes(options, Recipe)
    source = options.data or ["enwik8"]
    if options.dry_run:
        source = options.data or ["sample"]
        recipe_changes = {**TRIAL, "eval_bytes": TRIAL_BYTES, **recipe_changes}
    elif "device" not in recipe_changes and pick_device("auto").type == "cpu":
        raise InputError(
            "the paper's run needs a GPU, and there is none here: --dry-run tries a few steps, "
            "--device cpu trains on the CPU all the same, for weeks"
        )
    keeper = None
    if options.keep is not None:
        keeper = Keeper(options.out, options.keep, options.keep_minutes)
    with joined() as ranks:
        if source == ["enwik8"]:
            ranks.in_turn(enwik8_path)  # here nothing may stand in for it
        corpus = ranks.in_turn(lambda: _corpus(source, options.split))
        if options.dry_run:
            corpus = dataclasses.replace(corpus, test=corpus.test[:TRIAL_BYTES])
        run = reproduce(
            options.out,
            corpus,
            preset=options.preset,
            model_changes=model_changes,
            recipe_changes=_with_limits(recipe_changes),
            keeper=keeper,
            progress=not options.quiet,
            tensorboard=options.tensorboard,
            settings=_recordable(source, options.split),
        )
        code = _finish(run.result, options.out, ranks, "go on with the same command")
        if code == 0 and ranks.is_first:
            print(run.table())
            if corpus.name != "enwik8" or options.dry_run:
                print("This was a trial: the paper's figures are for all of enwik8.")
        return code


def run_eval(options: argparse.Namespace) -> int:
    """``sharnn eval``."""
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


def run_generate(options: argparse.Namespace) -> int:
    """``sharnn generate``."""
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


def run_attention(options: argparse.Namespace) -> int:
    """``sharnn attention``."""
    # What would stop it at the end is looked at first: a survey takes its time.
    places = [require_writable(p) for p in (options.out, options.survey) if p is not None]
    if options.survey is not None:
        check_picture_name(places[1])
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
