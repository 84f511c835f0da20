"""Commands that make one file from another; each returns the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from sharnn.checkpoint import load, save, write_atomically
from sharnn.compression import compress, decompress
from sharnn.convert import convert
from sharnn.errors import InputError
from sharnn.export import export

STREAM = "-"  # stands for standard input or output


def run_compress(options: argparse.Namespace) -> int:
    """``sharnn compress``."""
    model = load(options.model)
    return _turn(
        options,
        lambda content: compress(
            model,
            content,
            lanes=options.lanes,
            learn=options.learn,
            progress=not options.quiet,
        ),
    )


def run_decompress(options: argparse.Namespace) -> int:
    """``sharnn decompress``."""
    model = load(options.model)
    return _turn(options, lambda content: decompress(model, content, progress=not options.quiet))


def run_export(options: argparse.Namespace) -> int:
    """``sharnn export``."""
    model = load(options.model)
    export(model, options.output, weights=options.weights)
    line = f"{_size(options.output)}, {options.weights}"
    if options.output.endswith(".onnx"):
        config = model.config
        parts = 2 * config.layers + config.head_count
        line += (
            f"; x (batch, time) and {parts} parts of the state to "
            f"logits (batch, time, {config.vocab_size}) and the next state"
        )
    print(line)
    return 0


def run_convert(options: argparse.Namespace) -> int:
    """``sharnn convert``."""
    model = convert(options.checkpoint, memory=options.memory, dropout=options.dropout)
    save(model, options.output)
    config = model.config
    heads = ",".join(map(str, config.attention_layers)) or "none"
    print(
        f"{_size(options.output)}; {config.layers} layers of width {config.dim}, "
        f"Boom {config.boom_dim}, heads in {heads}, {config.vocab_size} symbols"
    )
    return 0


def _turn(options: argparse.Namespace, function: Callable[[bytes], bytes]) -> int:
    """Reads the input, and writes what the function makes of it: all of it, or nothing."""
    place = None if options.output == STREAM else _writable(options.output)
    content = _content(options.input)
    if place is not None and options.input != STREAM and _same(Path(options.input), place):
        raise InputError(f"{options.input} would be overwritten by its own output: name another")
    try:
        made = function(content)
    except InputError as error:
        raise InputError(f"{options.input}: {error}") from error
    if place is None:
        sys.stdout.buffer.write(made)
        sys.stdout.buffer.flush()
    else:
        write_atomically(place, made)
    if not options.quiet:
        print(f"{options.input}: {len(content):,} -> {len(made):,} bytes", file=sys.stderr)
    return 0


def _content(source: str) -> bytes:
    """All bytes of a file, or of standard input."""
    if source == STREAM:
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"can't read {source}: {error.strerror or error}") from error


def _writable(target: str) -> Path:
    """The path of an output, looked at before the work that it waits for."""
    path = Path(target)
    if not path.absolute().parent.is_dir():
        raise InputError(f"can't write {path}: its folder is not there")
    if path.exists() and not path.is_file():
        raise InputError(f"can't write {path}: it is no file; - is standard output")
    return path


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _size(path: str) -> str:
    return f"{path}: {Path(path).stat().st_size / 1e6:.1f} MB"
