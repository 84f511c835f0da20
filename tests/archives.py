"""Archives of format 2 in a few lines of Python, with which the archives of a page are compared."""

import hashlib
import struct

import numpy as np

from sharnn.exact.arithmetic import EXP
from sharnn.exact.stepper import ExactStepper
from sharnn.streams import cut_streams
from sharnn.weights import fingerprint

TOTAL, WHOLE, NARROW = 2**24, 2**48, 2**40
FRAME = 65536


def frequencies(logits):
    """Returns integers (streams, vocab_size) whose rows sum to 2^24."""
    e = EXP(logits - logits.max(axis=1, keepdims=True))
    spare = TOTAL - logits.shape[1]
    found = 1 + np.floor(e * (spare / e.sum(axis=1, keepdims=True)))
    found[np.arange(len(found)), logits.argmax(axis=1)] += TOTAL - found.sum(axis=1)
    return found.astype(np.int64)


def bits(model, content):
    """Returns the bits of each byte in an archive with one lane, (bytes,)."""
    stepper, logits, found = ExactStepper(model), np.zeros((1, model.config.vocab_size)), []
    for symbol in content:
        found.append(24 - np.log2(frequencies(logits)[0, symbol]))
        logits = stepper.step(np.array([symbol]))
    return np.array(found)


def digest(*parts):
    return hashlib.sha256(b"".join(parts)).digest()[:8]


class Encoder:
    """The code as one number in base 256, whose last six digits are the start of the interval."""

    def __init__(self):
        self.low, self.width, self.shifts = 0, WHOLE, 0

    def code(self, row, symbol=None):
        step = self.width // TOTAL
        self.low += step * int(row[:symbol].sum())
        self.width = step * int(row[symbol])
        while self.width < NARROW:
            self.low, self.width, self.shifts = self.low << 8, self.width << 8, self.shifts + 1
        return symbol

    def finish(self):
        # The shortest code in the interval, if zeros follow it.
        for size in range(self.shifts + 7):
            unit = 256 ** (self.shifts + 6 - size)
            first = -(-self.low // unit)
            if first * unit < self.low + self.width:
                return first.to_bytes(size, "big")
        raise AssertionError("the interval is empty")


class Decoder:
    def __init__(self, code):
        self.rest, self.width = code[6:], WHOLE
        self.offset = int.from_bytes(code[:6].ljust(6, b"\0"), "big")

    def code(self, row, symbol=None):
        step = self.width // TOTAL
        ends = np.cumsum(row)
        symbol = int(np.searchsorted(ends, min(TOTAL - 1, self.offset // step), side="right"))
        self.offset -= step * int(ends[symbol] - row[symbol])
        self.width = step * int(row[symbol])
        while self.width < NARROW:
            self.offset = self.offset << 8 | (self.rest[0] if self.rest else 0)
            self.rest, self.width = self.rest[1:], self.width << 8
        return symbol


def header(model, length, lanes, method=1):
    start = struct.pack("<4sBBHQ8s", b"\x9dSHA", 2, method, lanes, length, fingerprint(model))
    return start + digest(start)


def frame(head, index, code, content):
    checksum = digest(head, struct.pack("<I", index), code)
    return struct.pack("<I", len(code)) + checksum + digest(content) + code


def code_lanes(model, content, lanes, make_coder):
    """Yields the coder and the content of each frame. A decoder fills in the content."""
    starts, lengths = cut_streams(len(content), lanes)
    longest = int(lengths.max())
    memory = max(1, min(model.config.memory, longest))
    stepper = ExactStepper(model, lanes, memory)
    logits = np.zeros((lanes, model.config.vocab_size))
    steps = max(1, FRAME // lanes)
    for first in range(0, longest, steps):
        coder, done = make_coder(), bytearray()
        for step in range(first, min(first + steps, longest)):
            x = np.zeros(lanes, dtype=np.int64)
            rows = frequencies(logits)
            for lane in np.flatnonzero(lengths > step):
                place = starts[lane] + step
                x[lane] = content[place] = coder.code(rows[lane], content[place])
                done.append(x[lane])
            logits = stepper.step(x)
        yield coder, bytes(done)


def pack(model, content, lanes):
    head = header(model, len(content), lanes)
    frames = code_lanes(model, bytearray(content), lanes, Encoder)
    return head + b"".join(
        frame(head, index, coder.finish(), done) for index, (coder, done) in enumerate(frames)
    )


def unpack(model, archive):
    """Returns the content of an archive of a model, if all of its checksums match."""
    head = archive[:32]
    _, _, method, lanes, length, _ = struct.unpack("<4sBBHQ8s", head[:24])
    assert head == header(model, length, lanes, method)
    codes, sums, place = [], [], 32
    while place < len(archive):
        (size,) = struct.unpack_from("<I", archive, place)
        code = archive[place + 20 : place + 20 + size]
        assert archive[place + 4 : place + 12] == digest(head, struct.pack("<I", len(codes)), code)
        codes.append(code)
        sums.append(archive[place + 12 : place + 20])
        place += 20 + size
    if method == 0:
        assert sums == [digest(code) for code in codes]
        return b"".join(codes)
    content, remaining = bytearray(length), iter(codes)
    frames = code_lanes(model, content, lanes, lambda: Decoder(next(remaining)))
    assert sums == [digest(done) for _, done in frames]
    return bytes(content)
