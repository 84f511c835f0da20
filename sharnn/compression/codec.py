"""Lossless compression with a model's predictions, an entropy coder and checksums."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from sharnn.compression.coder import Decoder, Encoder, Frequencies, Symbols, code_lengths
from sharnn.compression.coding import Coding, Content
from sharnn.compression.container import (
    CODED,
    FRAME_BYTES,
    HEADER_BYTES,
    LEARNED,
    MAX_STREAMS,
    MIXED,
    STORED,
    Frame,
    Header,
    checksum,
    max_length,
    read_frame,
    version_of,
)
from sharnn.compression.format1 import codec as format1
from sharnn.compression.format1.container import VERSION as FORMAT_1
from sharnn.compression.settings import reproducible
from sharnn.errors import InputError
from sharnn.io.console import Progress
from sharnn.model import SHARNN, require_symbols
from sharnn.weights import fingerprint, require_fingerprint, unwrap, usable

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
    mix: bool = False,
    progress_bar: bool = False,
) -> bytes:
    """Compresses bytes into an archive that `decompress` restores with the same model.

    The data are cut into contiguous streams that are coded in parallel, byte by byte; the model's
    state and memory are carried along each stream. The size is about what `bits_per_byte` predicts
    for the same number of streams; the first byte of each stream costs 8 bits. Data that would not
    get smaller are stored unchanged.

    Everything is computed in exact arithmetic, so an archive can be restored on every machine, and
    without ``learn`` and ``mix`` also in a web page.

    Args:
        model: the model, on the CPU; it does not change.
        data: any bytes.
        num_streams: number of streams, 1 to 1024; None for `default_num_streams`.
        learn: keep training a copy of the model while coding and decoding, which gives a smaller
            archive and takes longer.
        mix: mix the model's predictions with those of counts and of the longest match in the data
            (see `sharnn.compression.mixing.Mixer`), which gives a smaller archive, by far if the
            data are unlike the model's training text.
        progress_bar: show a progress bar on standard error.

    Returns:
        The archive: a header of 32 bytes, and for each 64 KiB of data a frame of 20 bytes and the
        code.

    Raises:
        InputError: ``data`` are not bytes or contain one that is outside the model's vocabulary,
            ``num_streams`` is out of range, or the model is not on the CPU, has a single symbol (or
            not 256, with ``mix``) or has damaged weights.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=8, boom_dim=32))
        >>> decompress(model, compress(model, b"the same bytes"))
        b'the same bytes'
    """
    model, content, num_streams = _prepare(model, data, num_streams)
    header = _header(model, content, num_streams, learn=learn, mix=mix)
    parts = [header.to_bytes()]
    with _coding(model, header, content, progress_bar) as coding:
        for number, steps in enumerate(coding.frames()):
            encoder = Encoder()
            coded = coding.code(steps, partial(_encode, encoder))
            parts.append(Frame(encoder.to_bytes(), checksum(coded)).to_bytes(header, number))
    archive = b"".join(parts)
    if len(archive) <= len(content):  # a stored archive, which has headers too, would be longer
        return archive
    return min(_store(header, content.tobytes()), archive, key=len)


def _header(model: SHARNN, content: Content, num_streams: int, *, learn: bool, mix: bool) -> Header:
    """Returns the header of an archive that is coded with a model."""
    if mix and model.config.vocab_size != 256:
        raise InputError(f"mixing needs a model with 256 symbols, not {model.config.vocab_size}")
    method = CODED | LEARNED * learn | MIXED * mix
    return Header(method, num_streams, len(content), fingerprint(model))


def _store(header: Header, content: bytes) -> bytes:
    """Returns an archive that holds the content as it is."""
    header = dataclasses.replace(header, method=STORED, num_streams=1)
    parts = [header.to_bytes()]
    for number, start in enumerate(range(0, len(content), FRAME_BYTES)):
        part = content[start : start + FRAME_BYTES]
        parts.append(Frame(part, checksum(part)).to_bytes(header, number))
    return b"".join(parts)


@dataclasses.dataclass(frozen=True)
class Recovered:
    """What `recover` has restored.

    Attributes:
        content: the bytes up to the last one that was restored; those in between that were not
            are 0.
        intact: the ranges of bytes that were restored; one per stream.
        length: size of the whole content.
        problem: why the rest could not be restored; None if all is there.
    """

    content: bytes
    intact: list[range]
    length: int
    problem: str | None

    @property
    def num_restored(self) -> int:
        """Number of bytes that were restored."""
        return sum(len(part) for part in self.intact)


def decompress(model: SHARNN, data: bytes, *, progress_bar: bool = False) -> bytes:
    """Restores the bytes that were given to `compress`.

    Args:
        model: the model that the data were compressed with, on the CPU; it does not change.
        data: an archive from `compress`.
        progress_bar: show a progress bar on standard error.

    Returns:
        The content. Wrong content is never returned, because its checksums would not match.

    Raises:
        InputError: ``data`` are not an archive, or the archive is of another version, truncated or
            damaged, or it was compressed with another model. If it is of format 1: or this machine
            computes other probabilities.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> decompress(SHARNN(ModelConfig(dim=8, boom_dim=32)), b"plain text")
        Traceback (most recent call last):
        ...
        sharnn.errors.InputError: not a sharnn archive
    """
    data, model = _to_bytes(data), _checked(model)
    if version_of(data) == FORMAT_1:
        return format1.decompress(model, data, progress_bar=progress_bar)
    recovered = recover(model, data, progress_bar=progress_bar)
    if recovered.problem is None:
        return recovered.content
    hint = ""
    if recovered.num_restored:
        hint = f"; the {recovered.num_restored:,} bytes before it can be recovered (--recover)"
    raise InputError(recovered.problem + hint)


def recover(model: SHARNN, data: bytes, *, progress_bar: bool = False) -> Recovered:
    """Restores what comes before the first damage of an archive.

    Args:
        model, data, progress_bar: as in `decompress`; the archive has format 2.

    Raises:
        InputError: nothing can be restored: ``data`` are not an archive of format 2, its header
            is damaged, or it was compressed with another model.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=8, boom_dim=32))
        >>> recover(model, compress(model, b"whole")).num_restored
        5
        >>> recover(model, compress(model, b"truncated")[:-1]).problem
        'the archive is truncated or damaged at byte 32'
    """
    data, model = _to_bytes(data), _checked(model)
    header = Header.from_bytes(data)
    require_fingerprint(model, header.fingerprint)
    if header.length > max_length(len(data)):
        raise InputError(
            f"the archive is truncated or invalid: {len(data):,} bytes can't represent "
            f"{header.length:,} bytes"
        )
    if header.method == STORED:
        return _recover_stored(header, data)
    content = np.zeros(header.length, dtype=np.uint8)
    problem, steps_done, place = None, 0, HEADER_BYTES
    with _coding(model, header, content, progress_bar) as coding:
        try:
            for number, steps in enumerate(coding.frames()):
                place = _restore_frame(coding, header, data, place, number, steps)
                steps_done = steps.stop
        except InputError as error:
            problem = str(error)
    if problem is None and place != len(data):
        problem = f"the archive is invalid: {len(data) - place:,} bytes follow its end"
    intact = coding.intact(steps_done)
    restored = np.zeros_like(content)
    for part in intact:
        restored[part.start : part.stop] = content[part.start : part.stop]
    end = max((part.stop for part in intact if part), default=0)
    return Recovered(restored[:end].tobytes(), intact, header.length, problem)


def _restore_frame(
    coding: Coding, header: Header, data: bytes, place: int, number: int, steps: range
) -> int:
    """Decodes one frame and returns the offset of the next.

    Raises:
        InputError: the frame is damaged, or its content does not match its checksum.
    """
    frame, end = read_frame(header, data, place, number)
    coded = coding.code(steps, partial(_decode, Decoder(frame.code)))
    if checksum(coded) != frame.checksum:
        raise _wrong_content(place)
    return end


def _wrong_content(place: int) -> InputError:
    """Returns the error for a frame whose content is not that of its checksum."""
    return InputError(
        f"the archive is invalid at byte {place:,}: the restored bytes do not match their checksum"
    )


def _recover_stored(header: Header, data: bytes) -> Recovered:
    """Returns the content of an archive that holds it as it is."""
    content, problem, place, number = bytearray(), None, HEADER_BYTES, 0
    try:
        while len(content) < header.length:
            frame, end = read_frame(header, data, place, number)
            if checksum(frame.code) != frame.checksum:
                raise _wrong_content(place)
            content += frame.code
            number, place = number + 1, end
    except InputError as error:
        problem = str(error)
    if problem is None and (len(content), place) != (header.length, len(data)):
        problem = f"the archive is invalid: it does not have {header.length:,} bytes of content"
    return Recovered(bytes(content), [range(len(content))], header.length, problem)


def _encode(encoder: Encoder, frequencies: Frequencies, symbols: Symbols) -> Symbols:
    encoder.write(symbols, frequencies)
    return symbols


def _decode(decoder: Decoder, frequencies: Frequencies, _: Symbols) -> Symbols:
    return decoder.read(frequencies)


def bits_in_archive(
    model: SHARNN,
    data: bytes,
    *,
    num_streams: int | None = None,
    learn: bool = False,
    mix: bool = False,
) -> npt.NDArray[np.float64]:
    """Returns the number of bits that each byte takes in an archive of `compress`.

    Args:
        model, data, num_streams, learn, mix: as in `compress`.

    Returns:
        (bytes,): the code in the archive has as many bits as their sum, and a few for each frame.

    Raises:
        InputError: see `compress`.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> bits_in_archive(SHARNN(ModelConfig(dim=8, boom_dim=32)), b"text").shape
        (4,)
    """
    model, content, num_streams = _prepare(model, data, num_streams)
    header = _header(model, content, num_streams, learn=learn, mix=mix)
    bits = []

    def measure(frequencies: Frequencies, symbols: Symbols) -> Symbols:
        bits.append(code_lengths(frequencies, symbols))
        return symbols

    in_place = np.zeros(len(content))
    with _coding(model, header, content, progress_bar=False) as coding:
        for steps in coding.frames():
            coding.code(steps, measure)
    calls = 8 if mix else 1  # of `measure` for each step
    for step in range(len(bits) // calls):
        in_place[coding.positions(step)] = sum(bits[step * calls : (step + 1) * calls])
    return in_place


def _prepare(model: SHARNN, data: bytes, num_streams: int | None) -> tuple[SHARNN, Content, int]:
    """Returns the checked model, the content as a new array, and the number of streams."""
    model, data = _checked(model), _to_bytes(data)
    if num_streams is None:
        num_streams = default_num_streams(len(data))
    if type(num_streams) is not int or not 1 <= num_streams <= MAX_STREAMS:
        raise InputError(
            f"num_streams (--lanes) must be an integer from 1 to {MAX_STREAMS}, got {num_streams!r}"
        )
    content = np.frombuffer(data, dtype=np.uint8).copy()
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


@contextlib.contextmanager
def _coding(
    model: SHARNN, header: Header, content: Content, progress_bar: bool
) -> Iterator[Coding]:
    """Context manager: the content on its way through the model, with a progress bar if wanted."""
    with reproducible():  # on one thread: the products of a step are too small to be shared
        if not progress_bar:
            yield Coding(model, header, content)
            return
        with Progress(header.length, rate_unit="B") as progress:
            yield Coding(model, header, content, progress.update)
