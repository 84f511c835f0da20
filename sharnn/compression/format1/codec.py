"""Archives of format 1, which earlier versions wrote: they are restored."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sharnn.compression.format1.coder import (
    ROUNDING_HINT,
    Decoder,
    Frequencies,
    Symbols,
    max_symbols,
)
from sharnn.compression.format1.container import (
    CODED,
    LEARNED_ALL,
    STORED,
    Container,
    checksum,
)
from sharnn.compression.format1.prediction import LearningPredictor, Predictor
from sharnn.compression.settings import reproducible
from sharnn.errors import InputError
from sharnn.io.console import Progress
from sharnn.model import SHARNN
from sharnn.streams import cut_streams
from sharnn.weights import require_fingerprint

Content = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]  # (streams,)
# Codes one byte of each stream: takes its frequencies and its position, and returns it.
SymbolCoder = Callable[[Frequencies, Positions], Symbols]


def decompress(model: SHARNN, data: bytes, *, progress_bar: bool) -> bytes:
    """Restores the bytes of an archive of format 1.

    Args:
        model: the model that the data were compressed with, on the CPU; it does not change.
        data: the archive.
        progress_bar: show a progress bar on standard error.

    Returns:
        The content. Wrong content is never returned, because its checksum would not match.

    Raises:
        InputError: the archive is truncated or damaged, or was compressed with another model, or
            this machine computes other probabilities.
    """
    archive = Container.from_bytes(data)
    require_fingerprint(model, archive.fingerprint)
    if archive.method == STORED:
        return archive.payload
    if archive.length > max_symbols(len(archive.payload), model.config.vocab_size):
        raise InputError(
            f"the archive is invalid: {len(archive.payload)} bytes can't represent "
            f"{archive.length} bytes"
        )
    content = np.zeros(archive.length, dtype=np.uint8)
    decoder = Decoder(archive.payload)

    def decode(frequencies: Frequencies, positions: Positions) -> Symbols:
        symbols = decoder.read(frequencies)
        content[positions] = symbols
        return symbols

    code_streams(model, archive.length, archive.num_streams, archive.method, decode, progress_bar)
    restored = content.tobytes()
    if checksum(restored) != archive.checksum:
        raise InputError(f"the restored bytes do not match their checksum: {ROUNDING_HINT}")
    return restored


def _make_predictor(method: int, model: SHARNN, num_streams: int, memory_limit: int) -> Predictor:
    """Returns the predictor that an archive's method needs."""
    if method == CODED:
        return Predictor(model, num_streams, memory_limit)
    only_matrices = method != LEARNED_ALL
    return LearningPredictor(model, num_streams, memory_limit, only_matrices=only_matrices)


def code_streams(
    model: SHARNN,
    length: int,
    num_streams: int,
    method: int,
    code: SymbolCoder,
    progress_bar: bool,
) -> None:
    """Codes the content, one byte of each stream at a time; shared by coder and decoder.

    Args:
        model: the model.
        length: size of the content in bytes.
        num_streams: number of streams, at most ``length`` unless the content is empty.
        method: of the archive, which says what a copy of the model learns meanwhile.
        code: encodes or decodes one byte of each stream.
        progress_bar: show a progress bar on standard error.
    """
    starts, lengths = cut_streams(length, num_streams)  # (streams,) each, the longest first
    longest = int(lengths[0])
    # A ring buffer allocates all of its rows, and no stream fills more than it has bytes.
    memory_limit = max(1, min(model.config.memory, longest))
    shown = Progress(length, rate_unit="B") if progress_bar else contextlib.nullcontext()
    with reproducible(), shown as progress:
        predictor = _make_predictor(method, model, num_streams, memory_limit)
        coded = 0
        for position in range(longest):
            # Lengths differ by at most 1: only the last byte can be missing in some streams.
            active = int((lengths > position).sum())
            symbols = code(predictor.next()[:active], starts[:active] + position)  # (active,)
            if position + 1 < longest:
                predictor.read(symbols)
            coded += active
            if progress is not None:
                progress.update(coded)
