"""The loop that coder and decoder share: one byte of each stream at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sharnn.compression.coder import TOTAL, Frequencies, Symbols
from sharnn.compression.container import LEARNED, MIXED, Header
from sharnn.compression.logistic import ONE
from sharnn.compression.mixing import Mixer
from sharnn.compression.prediction import LearningPredictor, Predictor
from sharnn.exact.ring import MAX_ROWS
from sharnn.model import SHARNN
from sharnn.streams import cut_streams

Content = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]  # (streams,)
# Codes one symbol of each stream. It takes their frequencies, and when encoding the symbols, and
# returns the symbols.
SymbolCoder = Callable[[Frequencies, Symbols], Symbols]


class Coding:
    """The content of an archive on its way through the model.

    Args:
        model: the model.
        header: of the archive.
        content: (length,) the content; when decoding, zeros that are overwritten.
        report: called with the number of bytes coded so far.
    """

    def __init__(
        self,
        model: SHARNN,
        header: Header,
        content: Content,
        report: Callable[[int], None] | None = None,
    ) -> None:
        self.content, self.report = content, report
        self.starts, self.lengths = cut_streams(header.length, header.num_streams)
        self.longest = int(self.lengths[0])
        self.steps_per_frame = header.steps_per_frame
        self.model, self.method, self.coded = model, header.method, 0

    @cached_property
    def predictor(self) -> Predictor:
        """The predictor of all streams; an archive whose first frame is damaged needs none."""
        # No stream fills more rows than it has bytes.
        memory_limit = max(1, min(self.model.config.memory, self.longest, MAX_ROWS))
        kind = LearningPredictor if self.method & LEARNED else Predictor
        return kind(self.model, len(self.starts), memory_limit)

    @cached_property
    def mixer(self) -> Mixer | None:
        """The mixer of all streams; None if predictions are not mixed."""
        return Mixer(len(self.starts)) if self.method & MIXED else None

    def frames(self) -> Iterator[range]:
        """Yields the steps of each frame; a step is one byte of each stream."""
        for start in range(0, self.longest, self.steps_per_frame):
            yield range(start, min(start + self.steps_per_frame, self.longest))

    def code(self, steps: range, code: SymbolCoder) -> bytes:
        """Codes one frame.

        Args:
            steps: from `frames`, each once and in order.
            code: encodes or decodes one byte of each stream.

        Returns:
            The bytes in the order in which they were coded.
        """
        coded = []
        for step in steps:
            positions = self.positions(step)
            frequencies = self.predictor.next()[: len(positions)]
            symbols = self._code_bytes(frequencies, self.content[positions].astype(np.int32), code)
            self.content[positions] = symbols
            if step + 1 < self.longest:
                self.predictor.read(symbols)
            coded.append(symbols)
            self.coded += len(positions)
            if self.report is not None:
                self.report(self.coded)
        return np.concatenate(coded).astype(np.uint8).tobytes()

    def _code_bytes(self, frequencies: Frequencies, known: Symbols, code: SymbolCoder) -> Symbols:
        """Codes one byte of each stream, bit by bit if predictions are mixed."""
        if self.mixer is None:
            return code(frequencies, known)
        self.mixer.start(frequencies)
        symbols = np.zeros_like(known)
        for shift in range(7, -1, -1):  # the highest bit first
            ones = self.mixer.next() * (TOTAL // ONE)  # (streams,)
            bits = code(np.stack([TOTAL - ones, ones], axis=1), known >> shift & 1)
            self.mixer.update(bits.astype(np.int64))
            symbols = 2 * symbols + bits
        return symbols

    def positions(self, step: int) -> Positions:
        """Returns the positions in the content that a step codes, one per stream.

        Lengths differ by at most 1, so only the last byte can be missing in some streams.
        """
        return self.starts[: int((self.lengths > step).sum())] + step

    def intact(self, steps: int) -> list[range]:
        """Returns the range of positions in each stream that the first ``steps`` steps code."""
        return [
            range(start, start + min(steps, length))
            for start, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True)
        ]
