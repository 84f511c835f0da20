"""Lossless compression: a model's predictions, an entropy coder, and a file that checks itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from sharnn.compression.coder import OTHERWISE, Decoder, Encoder, most_symbols
from sharnn.compression.container import (
    CODED,
    LEARNED,
    MOST_LANES,
    STORED,
    Container,
    checksum,
    fingerprint,
)
from sharnn.compression.prediction import LearningPredictor, Predictor, reproducible
from sharnn.errors import InputError
from sharnn.model import SHARNN, require_symbols

Symbols = npt.NDArray[np.int32]
# Takes frequencies for a byte of each lane, and the places of these bytes; gives the bytes.
Exchange = Callable[[npt.NDArray[np.float64], npt.NDArray[np.int64]], Symbols]

LANE_BYTES = 16_384  # bytes of a lane from which its start without a past costs little
MOST_BY_DEFAULT = 64


def default_lanes(length: int) -> int:
    """Lanes for so many bytes: one for each 16 KiB, at least 1 and at most 64.

    More lanes are faster and compress less, since each starts without a past.

    Args:
        length: bytes to compress.

    Returns:
        The number of lanes.

    Example:
        >>> default_lanes(1000), default_lanes(200_000), default_lanes(100_000_000)
        (1, 12, 64)
    """
    return max(1, min(MOST_BY_DEFAULT, length // LANE_BYTES))


def compress(
    model: SHARNN,
    data: bytes,
    *,
    lanes: int | None = None,
    learn: bool = False,
    progress: bool = False,
) -> bytes:
    """Compresses bytes so that `decompress` with the same model gives them back.

    The data are cut into contiguous lanes that are coded side by side, byte by byte; each lane
    carries the model's state and memory from its start. A byte costs what the model thinks of it,
    about what `bits_per_byte` counts with as many streams; each lane's first costs 8 bits. Data
    that would not get smaller are stored as they are.

    Everything is computed on one CPU thread in float32. Probabilities come out the same wherever
    processor, torch and sharnn are the same. Elsewhere float32 may round otherwise; `decompress`
    then notices by the content's checksum, and gives nothing back. Each lane has a memory of its
    own, of as many rows as the lane has bytes, or the model's if that has fewer.

    Args:
        model: on the CPU; it is left as it is.
        data: any bytes.
        lanes: pieces to code side by side, 1 to 1024; None for `default_lanes`.
        learn: go on training while coding, and while decoding: fewer bytes, slower.
        progress: show a bar on standard error.

    Returns:
        The compressed bytes: a header of 48 bytes, and the code.

    Raises:
        InputError: the data are no bytes or hold one the model has no symbol for, ``lanes`` is out
            of range, or the model is not on the CPU, has a single symbol or damaged weights.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=8, boom_dim=32))
        >>> decompress(model, compress(model, b"the same bytes"))
        b'the same bytes'
    """
    data = _bytes(data)
    _require_coding(model)
    lanes = default_lanes(len(data)) if lanes is None else lanes
    if type(lanes) is not int or not 1 <= lanes <= MOST_LANES:
        raise InputError(f"lanes must be a whole number from 1 to {MOST_LANES}, got {lanes!r}")
    lanes = min(lanes, max(1, len(data)))
    content = np.frombuffer(data, dtype=np.uint8)
    require_symbols(model, int(content.max(initial=0)))
    encoder = Encoder()

    def write(counts: npt.NDArray[np.float64], places: npt.NDArray[np.int64]) -> Symbols:
        symbols = content[places].astype(np.int32)
        encoder.write(symbols, counts)
        return symbols

    _code(model, len(data), lanes, learn, write, progress)
    method, payload = (LEARNED if learn else CODED), encoder.to_bytes()
    if len(payload) >= len(data):
        method, payload = STORED, data
    mark = fingerprint(model)
    return Container(method, lanes, len(data), mark, checksum(data), payload).to_bytes()


def decompress(model: SHARNN, data: bytes, *, progress: bool = False) -> bytes:
    """Gives back what `compress` was given.

    Args:
        model: the model it was compressed with, on the CPU; it is left as it is.
        data: from `compress`.
        progress: show a bar on standard error.

    Returns:
        The content, to the last bit.

    Raises:
        InputError: the data were not made by `compress`, are of another version, cut short or
            altered; the model is another one; or this machine computes other probabilities. There
            is never a wrong result.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> decompress(SHARNN(ModelConfig(dim=8, boom_dim=32)), b"no such file")
        Traceback (most recent call last):
        ...
        sharnn.errors.InputError: this is no file that sharnn compressed
    """
    packed = Container.from_bytes(_bytes(data))
    _require_coding(model)
    mark = fingerprint(model)
    if mark != packed.fingerprint:
        raise InputError(
            f"the file was compressed with another model: its fingerprint is "
            f"{packed.fingerprint.hex()}, this model's {mark.hex()}"
        )
    if packed.method == STORED:
        return packed.payload
    if packed.length > most_symbols(len(packed.payload), model.config.vocab_size):
        raise InputError(
            f"the file is not by sharnn: {len(packed.payload)} bytes can't stand for "
            f"{packed.length} bytes"
        )
    content = np.zeros(packed.length, dtype=np.uint8)
    decoder = Decoder(packed.payload)

    def read(counts: npt.NDArray[np.float64], places: npt.NDArray[np.int64]) -> Symbols:
        symbols = decoder.read(counts)
        content[places] = symbols
        return symbols

    _code(model, packed.length, packed.lanes, packed.method == LEARNED, read, progress)
    restored = content.tobytes()
    if checksum(restored) != packed.checksum:
        raise InputError(f"the restored bytes are not those that were compressed: {OTHERWISE}")
    return restored


def _bytes(data: bytes) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise InputError(f"data must be bytes, got {type(data).__name__}: encode text first")
    return bytes(data)


def _require_coding(model: SHARNN) -> None:
    """Refuses a model that can't be a coder's."""
    device = model.embedding.weight.device.type
    if device != "cpu":
        raise InputError(f"compression runs on the CPU, the model is on {device}: use model.cpu()")
    if model.config.vocab_size < 2:
        raise InputError("a model of a single symbol has nothing to code: use one of 256")


def _code(
    model: SHARNN, length: int, lanes: int, learn: bool, exchange: Exchange, progress: bool
) -> None:
    """The way through the content that coder and decoder share, one byte of each lane at a time."""
    shortest, over = divmod(length, lanes)  # the first `over` lanes have one byte more
    numbers = np.arange(lanes)
    starts = numbers * shortest + np.minimum(numbers, over)  # (lanes,)
    # Rows that no lane is long enough to fill would only take room.
    memory = max(1, min(model.config.memory, shortest + (over > 0)))
    bar = tqdm(total=length, unit="B", unit_scale=True, disable=not progress)
    with reproducible(), bar:
        predictor = (LearningPredictor if learn else Predictor)(model, lanes, memory)
        for position in range(shortest):
            symbols = exchange(predictor.next(), starts + position)  # (lanes,)
            predictor.read(symbols)
            bar.update(lanes)
        if over:
            exchange(predictor.next()[:over], starts[:over] + shortest)
            bar.update(over)
