"""Commands that make one file from another: compress, decompress, export and convert."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import sharnn
from sharnn.checkpoint import STORAGES, find_model, load, save
from sharnn.cli.exit import FAILED, fail
from sharnn.cli.input import STANDARD_STREAM, read_input
from sharnn.cli.output import require_output_stream, write_output
from sharnn.cli.parsers import Commands, model_argument, positive, quiet_option
from sharnn.compression.codec import Recovered, recover
from sharnn.errors import InputError
from sharnn.io.console import notify
from sharnn.io.files import write_atomically
from sharnn.model import SHARNN
from sharnn.run_folder import require_output
from sharnn.web.scripts import export_web


def add_commands(commands: Commands) -> None:
    """Adds ``sharnn compress``, ``decompress``, ``export`` and ``convert``."""
    quiet = quiet_option("hide the progress bar and the sizes")
    output = "the file to write; - for standard output"

    parser = commands.add(
        "compress",
        run_compress,
        "Compress a file with a model's predictions.",
        model_argument(),
        quiet,
    )
    parser.add_argument("input", metavar="IN", help="any file; - for standard input")
    parser.add_argument("output", metavar="OUT", help=output)
    parser.add_argument(
        "--lanes",
        type=positive,
        help="number of streams coded in parallel (default: one per 16 KiB, from 1 to 64)",
    )
    parser.add_argument(
        "--learn",
        action="store_true",
        help="keep training during compression: smaller output, but slower",
    )
    parser.add_argument(
        "--mix",
        action="store_true",
        help="mix the model's predictions with counts and matches in the file: smaller output",
    )

    parser = commands.add(
        "decompress",
        run_decompress,
        "Decompress a file made by sharnn compress.",
        model_argument("the model that compressed the file"),
        quiet,
    )
    parser.add_argument("input", metavar="IN", help="a compressed file; - for standard input")
    parser.add_argument("output", metavar="OUT", help=output)
    parser.add_argument(
        "--recover",
        action="store_true",
        help="if the file is damaged, write what comes before the damage",
    )

    parser = commands.add(
        "export", run_export, "Export a model as ONNX, or with smaller weights.", model_argument()
    )
    parser.add_argument(
        "output",
        metavar="OUT",
        help="the file to write, ending in .onnx or .safetensors, or in .js with --web",
    )
    parser.add_argument(
        "--weights",
        choices=STORAGES,
        help="number format of the weights; int8 takes a quarter of the bytes, "
        "float16 is not for .onnx (default: float32, with --web int8)",
    )
    parser.add_argument(
        "--web",
        action="store_true",
        help="write a script that pages load to run the model, see sharnn playground",
    )

    parser = commands.add(
        "convert", run_convert, "Convert a checkpoint of the original SHA-RNN code."
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="state dict: .safetensors, .npz, or a file from torch.save",
    )
    parser.add_argument("output", metavar="OUT.safetensors", help="the model to write")
    parser.add_argument(
        "--memory", type=positive, default=5000, help="maximum number of rows a query can attend to"
    )
    parser.add_argument("--dropout", type=float, default=0.1, help="dropout for further training")
    parser.add_argument(
        "--heads",
        type=positive,
        help="number of heads in an attention layer, which the checkpoint does not contain; only "
        "models with 1 can be converted (default: 1, with a note)",
    )


def run_compress(options: argparse.Namespace) -> int:
    """Executes ``sharnn compress``."""

    def compress(model: SHARNN, content: bytes) -> bytes:
        return sharnn.compress(
            model,
            content,
            num_streams=options.lanes,
            learn=options.learn,
            mix=options.mix,
            progress_bar=not options.quiet,
        )

    return _transform(options, compress)


def run_decompress(options: argparse.Namespace) -> int:
    """Executes ``sharnn decompress``."""
    losses = []

    def decompress(model: SHARNN, content: bytes) -> bytes:
        try:
            if not options.recover:
                return sharnn.decompress(model, content, progress_bar=not options.quiet)
            recovered = recover(model, content, progress_bar=not options.quiet)
            if recovered.problem is not None:
                losses.append(_describe_loss(recovered))
            return recovered.content
        except InputError as error:
            raise InputError(f"{options.input}: {error}") from error

    code = _transform(options, decompress)
    return fail(f"{options.input}: {losses[0]}", FAILED) if losses else code


def _describe_loss(recovered: Recovered) -> str:
    """Describes what could not be recovered from a damaged archive.

    Raises:
        InputError: nothing could be recovered.
    """
    if not recovered.num_restored:
        raise InputError(f"{recovered.problem}; nothing can be recovered")
    amount = f"recovered {recovered.num_restored:,} of {recovered.length:,} bytes"
    if len(recovered.intact) > 1:
        amount += f", the start of each of {len(recovered.intact)} streams; those in between are 0"
    return f"{recovered.problem}; {amount}"


def run_export(options: argparse.Namespace) -> int:
    """Executes ``sharnn export``."""
    require_output(options.output, [find_model(options.model)])
    model = load(options.model)
    storage = options.weights or ("int8" if options.web else "float32")
    if options.web:
        export_web(model, options.output, storage)
    else:
        sharnn.export(model, options.output, storage=storage)
    line = f"{_size(options.output)}, {storage}"
    if options.output.endswith(".onnx"):
        config = model.config
        parts = 2 * config.layers + config.head_count
        line += (
            f"; maps x (batch, time) and {parts} tensors of state to "
            f"logits (batch, time, {config.vocab_size}) and the next state"
        )
    print(line)
    return 0


def run_convert(options: argparse.Namespace) -> int:
    """Executes ``sharnn convert``."""
    require_output(options.output, [options.checkpoint])
    model = sharnn.convert(
        options.checkpoint,
        memory=options.memory,
        dropout=options.dropout,
        heads=options.heads or 1,
    )
    save(model, options.output)
    config = model.config
    blocks = ", ".join(map(str, config.attention_layers))
    heads = f"attention head in block {blocks}" if blocks else "no attention head"
    print(
        f"{_size(options.output)}; {config.layers} layers of width {config.dim}, "
        f"Boom width {config.boom_dim}, {heads}, {config.vocab_size} symbols"
    )
    if blocks and options.heads is None:
        notify(
            "each attention layer is taken to have one head: the checkpoint has the same tensors "
            "with several. If num_heads was not 1 when it was trained, the model is wrong; if it "
            "was, --heads 1 hides this note"
        )
    return 0


def _transform(options: argparse.Namespace, function: Callable[[SHARNN, bytes], bytes]) -> int:
    """Reads model and input, and writes the function's result completely or not at all."""
    if options.output != STANDARD_STREAM:
        files = [options.input] if options.input != STANDARD_STREAM else []
        require_output(options.output, [find_model(options.model), *files])
    else:
        require_output_stream(binary=True)
    model, content = load(options.model), read_input(options.input)
    result = function(model, content)
    if options.output == STANDARD_STREAM:
        write_output(result)
    else:
        write_atomically(Path(options.output), result)
    if not options.quiet:
        print(f"{options.input}: {len(content):,} -> {len(result):,} bytes", file=sys.stderr)
    return 0


def _size(path: str) -> str:
    return f"{path}: {Path(path).stat().st_size / 1e6:.1f} MB"
