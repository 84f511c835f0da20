"""Sizes of files that sharnn and other compressors write: python -m benchmarks.sizes FILE...

Prints a table with a row for each compressor, ready for the guide "Compress files". Each archive of
sharnn is restored and compared, and the speed of both directions is printed below the table.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import sharnn
from benchmarks.entry import exit_code
from sharnn.cli.parsers import Parser
from sharnn.io.files import read_file
from sharnn.model import SHARNN
from sharnn.optional import import_optional

Compressor = Callable[[bytes], bytes]
OPTIONS: dict[str, dict[str, Any]] = {
    "": {},
    ", `--learn`": {"learn": True},
    ", `--mix`": {"mix": True},
    ", `--learn --mix`": {"learn": True, "mix": True},
}


def classical() -> dict[str, Compressor]:
    """Returns compressors by name, each at its highest setting.

    Raises:
        sharnn.InputError: one of their packages is missing.
    """
    zstandard, brotli, pyppmd = (
        import_optional(name, "the table of sizes") for name in ("zstandard", "brotli", "pyppmd")
    )

    def ppmd(data: bytes) -> bytes:
        encoder = pyppmd.Ppmd7Encoder(max_order=16, mem_size=2**28)
        return bytes(encoder.encode(data) + encoder.flush())

    return {
        "gzip -9": lambda data: gzip.compress(data, 9),
        "bzip2 -9": lambda data: bz2.compress(data, 9),
        "xz -9e": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
        "zstd -19": lambda data: bytes(zstandard.compress(data, 19)),
        "brotli -11": lambda data: bytes(brotli.compress(data, quality=11)),
        "PPMd, order 16": ppmd,
    }


def measure(model: SHARNN, name: str, data: bytes, options: dict[str, Any]) -> tuple[int, str]:
    """Returns the size of an archive of sharnn, and a line about the speed."""
    start = time.perf_counter()
    archive = sharnn.compress(model, data, **options)
    middle = time.perf_counter()
    if sharnn.decompress(model, archive) != data:
        raise RuntimeError(f"{name} did not come back")
    seconds = middle - start, time.perf_counter() - middle
    rates = " and ".join(f"{len(data) / each:,.0f}" for each in seconds)
    line = f"{name}, {options}: {len(archive):,} bytes, {rates} a second to compress and restore"
    return len(archive), line


def run(words: Sequence[str]) -> int:
    """Measures all compressors on all files and prints the table.

    Args:
        words: the words after the program's name.

    Returns:
        The exit code, 0.
    """
    parser = Parser(prog="python -m benchmarks.sizes", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--model", default="wiki-small", help="default: wiki-small")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    model, speeds = sharnn.load(options.model), []
    columns: list[dict[str, int]] = []
    for path in options.files:
        data = read_file(path)
        sizes = {"original": len(data)}
        sizes |= {name: len(compressor(data)) for name, compressor in classical().items()}
        for suffix, settings in OPTIONS.items():
            size, speed = measure(model, path.name, data, settings)
            sizes[f"`{options.model}`{suffix}"] = size
            speeds.append(speed)
            print(speed, file=sys.stderr, flush=True)
        columns.append(sizes)
    print("| | " + " | ".join(path.name for path in options.files) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name in columns[0]:
        cells = [
            f"**{sizes[name]:,}**" if sizes[name] == min(sizes.values()) else f"{sizes[name]:,}"
            for sizes in columns
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print("\n".join(["", *speeds]))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code("sizes", run))
