"""Commands that make one file from another; each returns the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from sharnn.checkpoint import find_model, load, require_writable, save, write_atomically
from sharnn.compression.codec import compress, decompress
from sharnn.errors import InputError
from sharnn.interop.converter import convert
from sharnn.interop.exporter import export
from sharnn.model import SHARNN

STREAM = "-"  # stands for standard input or output


def run_compress(options: argparse.Namespace) -> int:
    """``sharnn compress``."""
    return _turn(
        options,
        lambda model, content: compress(
            model,
            content,
            lanes=options.lanes,
            learn=options.learn,
            progress=not options.quiet,
        ),
    )


def run_decompress(options: argparse.Namespace) -> int:
    """``sharnn decompress``."""

    def restore(model: SHARNN, content: bytes) -> bytes:
        try:
            return decompress(model, content, progress=not options.quiet)
        except InputError as error:
            raise InputError(f"{options.input}: {error}") from error

    return _turn(options, restore)


def run_export(options: argparse.Namespace) -> int:
    """``sharnn export``."""
    _require_apart(options.output, find_model(options.model))
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
    _require_apart(options.output, options.checkpoint)
    model = convert(options.checkpoint, memory=options.memory, dropout=options.dropout)
    save(model, options.output)
    config = model.config
    heads = ",".join(map(str, config.attention_layers)) or "none"
    print(
        f"{_size(options.output)}; {config.layers} layers of width {config.dim}, "
        f"Boom {config.boom_dim}, heads in {heads}, {config.vocab_size} symbols"
    )
    return 0


def _turn(options: argparse.Namespace, function: Callable[[SHARNN, bytes], bytes]) -> int:
    """Reads model and input, and writes what the function makes of them: all of it, or nothing."""
    if options.output != STREAM:
        files = [options.input] if options.input != STREAM else []
        _require_apart(options.output, find_model(options.model), *files)
    elif sys.stdout is None:
        raise InputError("can't write to standard output: it is closed")
    model, content = load(options.model), _content(options.input)
    made = function(model, content)
    if options.output == STREAM:
        sys.stdout.buffer.write(made)
        sys.stdout.buffer.flush()
    else:
        write_atomically(Path(options.output), made)
    if not options.quiet:
        print(f"{options.input}: {len(content):,} -> {len(made):,} bytes", file=sys.stderr)
    return 0


def _content(source: str) -> bytes:
    """All bytes of a file, or of standard input."""
    if source == STREAM:
        if sys.stdin is None:
            raise InputError("can't read standard input: it is closed")
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"can't read {source}: {error.strerror or error}") from error


def _require_apart(output: str, *sources: str | Path) -> None:
    """Refuses an output that can't be written, or that would take the place of a source."""
    place = require_writable(output)
    for source in map(Path, sources):
        if place.exists() and source.exists() and place.samefile(source):
            raise InputError(f"{source} would be overwritten by its own output: name another")


def _size(path: str) -> str:
    return f"{path}: {Path(path).stat().st_size / 1e6:.1f} MB"
