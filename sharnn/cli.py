"""The command line: ``sharnn data``, ``train``, ``eval`` and ``generate``."""

from __future__ import annotations

import argparse
import codecs
import dataclasses
import inspect
import json
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

import sharnn
from sharnn.checkpoint import load
from sharnn.config import PRESETS, ModelConfig
from sharnn.data import Corpus, Split, load_corpus, open_files, parse_split
from sharnn.errors import InputError
from sharnn.evaluate import bits_per_byte
from sharnn.generate import stream
from sharnn.recipe import DEVICES, Recipe
from sharnn.trainer import pick_device
from sharnn.training import SETTINGS, Result, resume, train

DEFAULT_PRESET = "small"
NAMED = (["enwik8"], ["sample"])  # everything else is a file
INTERRUPTED = 130
NO_MEMORY = "out of memory: use a smaller model, batch_size, segment_length or memory"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, ""):
            return action.help
        return super()._get_help_string(action)


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
        return _fail(NO_MEMORY, 1)
    except OSError as error:
        return _fail(str(error), 1)
    except RuntimeError as error:
        if "alloc" not in str(error):
            raise
        return _fail(NO_MEMORY, 1)  # how torch says so on the CPU


def _fail(message: str, code: int) -> int:
    print("sharnn: " + " ".join(message.split()), file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sharnn", description="SHA-RNN: a byte-level language model.")
    parser.add_argument("--version", action="version", version=f"sharnn {sharnn.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> _Parser:
        added = commands.add_parser(name, help=text, description=text, formatter_class=_Formatter)
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
    training.add_argument("--threads", type=_positive, help="CPU threads; torch's choice")
    _add_fields(training, "model", ModelConfig.preset(DEFAULT_PRESET))
    _add_fields(training, "recipe", Recipe.preset(DEFAULT_PRESET))

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
    evaluation.add_argument("--memory", type=_positive, help="rows a query may see; the model's")
    evaluation.add_argument("--batch-size", type=_positive, help="streams; 1 to 8 by size")
    evaluation.add_argument("--segment-length", type=_positive, help="bytes read at a time")
    evaluation.add_argument("--json", action="store_true", help="print one JSON object")
    evaluation.add_argument("--device", default="auto", choices=DEVICES, help="where to compute")
    evaluation.add_argument("--threads", type=_positive, help="CPU threads; torch's choice")

    writing = command("generate", _generate, "Continue a prompt.")
    writing.add_argument("model", metavar="MODEL", help="run folder, .safetensors file or name")
    writing.add_argument("--prompt", default="", help="what the model reads first")
    writing.add_argument("--length", type=int, default=500, help="bytes to write")
    writing.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest")
    writing.add_argument("--top-k", type=int, help="draw from the k likeliest bytes")
    writing.add_argument("--top-p", type=float, help="draw from this much probability")
    writing.add_argument("--seed", type=int, help="the same seed writes the same bytes")
    writing.add_argument("--raw", action="store_true", help="write the bytes as they are")
    writing.add_argument("--device", default="auto", choices=DEVICES, help="where to compute")
    return parser


def _positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


_FIXED = ("vocab_size", "collapsed")  # bytes are always 256; collapsing comes after training


def _add_fields(parser: _Parser, title: str, preset: ModelConfig | Recipe) -> None:
    """One flag for each field of a dataclass; its docstring is the help."""
    group = parser.add_argument_group(f"{title} (in brackets {DEFAULT_PRESET}'s values)")
    texts = _field_texts(type(preset))
    for field in dataclasses.fields(preset):
        if field.name in _FIXED:
            continue
        group.add_argument(
            "--" + field.name.replace("_", "-"),
            type=_field_type(str(field.type)),
            default=argparse.SUPPRESS,
            metavar="N,N|none" if "tuple" in str(field.type) else "VALUE",
            help=f"{texts[field.name]} ({_shown(getattr(preset, field.name))})",
        )


def _shown(value: Any) -> str:
    """A value as it would be given as a flag."""
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value).lower()


def _field_texts(settings: type) -> dict[str, str]:
    """What the docstring's Args section says of each field."""
    section = inspect.getdoc(settings).split("Args:\n")[1].split("\n\n")[0]  # type: ignore[union-attr]
    texts = {}
    for entry in re.split(r"\n(?=    \S)", section):
        names, _, text = entry.strip().partition(": ")
        for name in names.split(", "):
            sentence = " ".join(text.split()).split(". ")[0].rstrip(".")
            texts[name] = sentence.replace("`", "").replace("%", "%%")
    return texts


def _field_type(annotation: str) -> Callable[[str], Any]:
    """Turns a flag's text into a value of an annotated type; ``none`` is None or an empty tuple."""

    def parse(text: str) -> Any:
        if text.lower() == "none" and "tuple" in annotation:
            return ()
        if text.lower() == "none" and "None" in annotation:
            return None
        if "tuple" in annotation:
            return tuple(int(part) for part in text.split(",") if part.strip())
        kind = annotation.split(" ")[0]
        return {"int": int, "float": float, "str": str}[kind](text)

    parse.__name__ = annotation  # argparse says "invalid int | None value"
    return parse


def _changes(options: argparse.Namespace, settings: type) -> dict[str, Any]:
    """The fields of a dataclass that were given as flags."""
    names = {field.name for field in dataclasses.fields(settings)}
    return {name: value for name, value in vars(options).items() if name in names}


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
    model_changes, changes = _changes(options, ModelConfig), _changes(options, Recipe)
    # The first limit given replaces the preset's.
    limits = {"steps", "epochs", "minutes"}
    if limits & changes.keys():
        changes = {**dict.fromkeys(limits - changes.keys()), **changes}
    if options.resume is not None:
        if options.out is not None and Path(options.out) != Path(options.resume):
            raise InputError("a resumed run stays in its folder: leave out --out")
        if options.preset is not None:
            raise InputError("--preset is for new runs: a resumed run keeps its model and recipe")
        if model_changes:
            raise InputError(f"--{next(iter(model_changes))} can't change when a run is resumed")
        source, split = _recorded_data(options)
        result = resume(options.resume, _corpus(source, split), changes, **show)
        return _finish(result, options.resume)
    if options.data is None or options.out is None:
        raise InputError("train needs --data and --out, or --resume (see sharnn train --help)")
    preset = options.preset or DEFAULT_PRESET
    config = dataclasses.replace(ModelConfig.preset(preset), **model_changes)
    recipe = dataclasses.replace(Recipe.preset(preset), **changes)
    corpus = _corpus(options.data, options.split)
    # Absolute paths, so that the run can be resumed from another folder.
    source = [str(Path(word).resolve()) if Path(word).is_file() else word for word in options.data]
    settings = {"data": source, "split": options.split, "preset": preset}
    return _finish(
        train(config, corpus, recipe, options.out, settings=settings, **show), options.out
    )


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


def _finish(result: Result, folder: str) -> int:
    """Says how a run ended."""
    if result.reason == "done":
        print(f"{result.message}; saved in {folder}")
        return 0
    saved = f"saved in {folder}, go on with: sharnn train --resume {folder}"
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
    model = load(options.model, pick_device(options.device))
    prompt = os.fsencode(options.prompt)
    settings = (options.temperature, options.top_k, options.top_p, options.seed)
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


def printable(prompt: bytes, written: Iterator[int]) -> Iterator[str]:
    r"""Text that a terminal can show, as soon as its bytes are there.

    Bytes that are no UTF-8, and control characters that could command a terminal, become U+FFFD.

    Args:
        prompt: bytes that come first.
        written: bytes one by one.

    Yields:
        Pieces of text.

    Example:
        >>> "".join(printable(b"caf", iter(b"\xc3\xa9 \x1b\xff")))
        'café ��'
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    yield _without_controls(decoder.decode(prompt))
    for byte in written:
        yield _without_controls(decoder.decode(bytes([byte])))
    yield _without_controls(decoder.decode(b"", final=True))


def _without_controls(text: str) -> str:
    return "".join(
        "\ufffd" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text
    )
