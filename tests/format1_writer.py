"""Writes archives of format 1, which the library only reads."""

import numpy as np

from sharnn.compression.format1.codec import code_streams
from sharnn.compression.format1.coder import import_constriction
from sharnn.compression.format1.container import CODED, STORED, Container, checksum
from sharnn.weights import fingerprint


class Encoder:
    """The counterpart of `sharnn.compression.format1.coder.Decoder`."""

    def __init__(self):
        constriction = import_constriction()
        self._coder = constriction.stream.queue.RangeEncoder()
        self._family = constriction.stream.model.Categorical(lazy=True, perfect=False)

    def write(self, symbols, frequencies):
        self._coder.encode(symbols, self._family, frequencies - 1)

    def to_bytes(self):
        return self._coder.get_compressed().astype("<u4").tobytes()


def compress(model, data, num_streams=1, method=CODED):
    content, encoder = np.frombuffer(data, dtype=np.uint8), Encoder()

    def encode(frequencies, positions):
        symbols = content[positions].astype(np.int32)
        encoder.write(symbols, frequencies)
        return symbols

    code_streams(model, len(content), num_streams, method, encode, False)
    payload = encoder.to_bytes()
    if len(payload) >= len(content):
        method, payload = STORED, data
    container = Container(
        method, num_streams, len(content), fingerprint(model), checksum(data), payload
    )
    return container.to_bytes()
