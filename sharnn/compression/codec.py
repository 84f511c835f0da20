"""Lossless compression with a model's predictions, an entropy coder and checksums."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sharnn.compression.coder import (
    ROUNDING_HINT,
    Decoder,
    Encoder,
    Frequencies,
    Symbols,
    code_lengths,
    max_symbols,
)
from sharnn.compression.container import (
    CODED,
    LEARNED,
    LEARNED_ALL,
    MAX_STREAMS,
    STORED,
    Container,
    checksum,
    fingerprint,
)
from sharnn.compression.prediction import LearningPredictor, Predictor, reproducible
from sharnn.errors import InputError
from sharnn.io.console import Progress
from sharnn.model import SHARNN, require_symbols
from sharnn.streams import cut_streams
from sharnn.weights import unwrap, usable

Positions = npt.NDArray[np.int64]  # (streams,)
# Codes one byte of each stream: takes its frequencies and its position, and returns it.
SymbolCoder = Callable[[Frequencies, Positions], Symbols]

BYTES_PER_STREAM = 16_384  # in so long a stream, the bits lost at its start hardly count
MAX_DEFAULT_STREAMS = 64


def default_num_streams(length: int) -> int:
    """Returns the default number of streams: one per 16 KiB, at least 1 and at most 64.

    More streams are faster, but they compress less, because the model starts each without context.

    Args:
        length: number of bytes to compress.

    Example:
        >>> [default_num_streams(length) for length in (1000, 200_000, 100_000_000)]
        [1, 12, 64]
    """
    return max(1, min(MAX_DEFAULT_STREAMS, length // BYTES_PER_STREAM))


def compress(
    model: SHARNN,
    data: bytes,
    *,
    num_streams: int | None = None,
    learn: bool = False,
    progress_bar: bool = False,
) -> bytes:
    """Compresses bytes into an archive that `decompress` restores with the same model.

    The data are cut into contiguous streams that are coded in parallel, byte by byte; the model's
    state and memory are carried along each stream. The size is about what `bits_per_byte` predicts
    for the same number of streams; the first byte of each stream costs 8 bits. Data that would not
    get smaller are stored unchanged.

    Everything is computed in float32 on one CPU thread, so that machines with the same processor
    and the same versions of torch and sharnn compute the same probabilities. Others may round
    differently; `decompress` then detects that a checksum does not match and raises an error. The
    memory of a stream has at most as many rows as the stream has bytes.

    Args:
        model: the model, on the CPU; it does not change.
        data: any bytes.
        num_streams: number of streams, 1 to 1024; None for `default_num_streams`.
        learn: keep training a copy of the model while coding and decoding, which gives a smaller
            archive and takes longer.
        progress_bar: show a progress bar on standard error.

    Returns:
        The archive: a header of 48 bytes, and the code.

    Raises:
        InputError: ``data`` are not bytes or contain one that is outside the model's vocabulary,
            ``num_streams`` is out of range, or the model is not on the CPU, has a single symbol or
            has damaged weights.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=8, boom_dim=32))
        >>> decompress(model, compress(model, b"the same bytes"))
        b'the same bytes'
    """
    model, content, num_streams = _prepare(model, data, num_streams)
    encoder = Encoder()

    def encode(frequencies: Frequencies, positions: Positions) -> Symbols:
        symbols = content[positions].astype(np.int32)
        encoder.write(symbols, frequencies)
        return symbols

    method = LEARNED if learn else CODED
    _code_streams(model, len(content), num_streams, method, encode, progress_bar)
    payload = encoder.to_bytes()
    if len(payload) >= len(content):
        method, payload = STORED, content.tobytes()
    return Container(
        method, num_streams, len(content), fingerprint(model), checksum(content.tobytes()), payload
    ).to_bytes()


def decompress(model: SHARNN, data: bytes, *, progress_bar: bool = False) -> bytes:
    """Restores the bytes that were given to `compress`.

    Args:
        model: the model that the data were compressed with, on the CPU; it does not change.
        data: an archive from `compress`.
        progress_bar: show a progress bar on standard error.

    Returns:
        The content. Wrong content is never returned, because its checksum would not match.

    Raises:
        InputError: ``data`` are not an archive, or the archive is of another version, truncated or
            damaged; it was compressed with another model; or this machine computes other
            probabilities.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> decompress(SHARNN(ModelConfig(dim=8, boom_dim=32)), b"plain text")
        Traceback (most recent call last):
        ...
        sharnn.errors.InputError: not a sharnn archive
    """
    archive = Container.from_bytes(_to_bytes(data))
    model = _checked(model)
    model_fingerprint = fingerprint(model)
    if model_fingerprint != archive.fingerprint:
        raise InputError(
            f"the archive was compressed with another model: its fingerprint is "
            f"{archive.fingerprint.hex()}, this model's is {model_fingerprint.hex()}"
        )
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

    _code_streams(model, archive.length, archive.num_streams, archive.method, decode, progress_bar)
    restored = content.tobytes()
    if checksum(restored) != archive.checksum:
        raise InputError(f"the restored bytes do not match their checksum: {ROUNDING_HINT}")
    return restored


def bits_in_archive(
    model: SHARNN, data: bytes, *, num_streams: int | None = None, learn: bool = False
) -> npt.NDArray[np.float64]:
    """Returns the number of bits that each byte takes in an archive of `compress`.

    Args:
        model, data, num_streams, learn: as in `compress`.

    Returns:
        (bytes,): the archive has as many bits as their sum, and its header.

    Raises:
        InputError: see `compress`.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> bits_in_archive(SHARNN(ModelConfig(dim=8, boom_dim=32)), b"text").shape
        (4,)
    """
    model, content, num_streams = _prepare(model, data, num_streams)
    bits = np.zeros(len(content))

    def measure(frequencies: Frequencies, positions: Positions) -> Symbols:
        symbols = content[positions].astype(np.int32)
        bits[positions] = code_lengths(frequencies, symbols)
        return symbols

    method = LEARNED if learn else CODED
    _code_streams(model, len(content), num_streams, method, measure, progress_bar=False)
    return bits


def _prepare(
    model: SHARNN, data: bytes, num_streams: int | None
) -> tuple[SHARNN, npt.NDArray[np.uint8], int]:
    """Returns the checked model, the content as an array, and the number of streams."""
    model, data = _checked(model), _to_bytes(data)
    if num_streams is None:
        num_streams = default_num_streams(len(data))
    if type(num_streams) is not int or not 1 <= num_streams <= MAX_STREAMS:
        raise InputError(
            f"num_streams (--lanes) must be an integer from 1 to {MAX_STREAMS}, got {num_streams!r}"
        )
    content = np.frombuffer(data, dtype=np.uint8)
    require_symbols(model, int(content.max(initial=0)))
    return model, content, min(num_streams, max(1, len(data)))


def _to_bytes(data: bytes) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise InputError(f"data must be bytes, got {type(data).__name__}: encode text first")
    return bytes(data)


def _checked(model: SHARNN) -> SHARNN:
    """Returns the model, without wrappers, if it can be used for coding."""
    model = unwrap(model)
    device = model.embedding.weight.device.type
    if device != "cpu":
        raise InputError(f"compression runs on the CPU, the model is on {device}: use model.cpu()")
    if model.config.vocab_size < 2:
        raise InputError("a model with a single symbol can't code bytes: use one with 256 symbols")
    return usable(model)


def _make_predictor(method: int, model: SHARNN, num_streams: int, memory_limit: int) -> Predictor:
    """Returns the predictor that an archive's method needs."""
    if method == CODED:
        return Predictor(model, num_streams, memory_limit)
    only_matrices = method != LEARNED_ALL
    return LearningPredictor(model, num_streams, memory_limit, only_matrices=only_matrices)


def _code_streams(
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
