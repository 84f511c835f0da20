"""Classical compressors on the test texts, alone and after they have read the training text."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from typing import Any

from benchmarks.pair.texts import PairTexts
from sharnn.optional import import_optional

Compressor = Callable[[bytes], int]


def measure_baselines(texts: PairTexts) -> dict[str, Any]:
    """Returns the bits per byte of each compressor on each test text.

    The cost of a text after the training text is the size of both less that of the training text.

    Args:
        texts: the texts of the pair.

    Raises:
        sharnn.InputError: the package pyppmd is missing.
    """
    pyppmd = import_optional("pyppmd", "the baseline PPMd")

    def ppmd(data: bytes) -> int:
        encoder = pyppmd.Ppmd7Encoder(max_order=16, mem_size=2**29)
        return len(encoder.encode(data)) + len(encoder.flush())

    compressors: dict[str, Compressor] = {
        "xz -9e": lambda data: len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
        "PPMd, order 16": ppmd,
    }
    training = texts.corpus.train[:].tobytes()
    results = {}
    for name, size in compressors.items():
        before = size(training)
        results[name] = {
            text: {
                "alone": 8 * size(content) / len(content),
                "after training text": 8 * (size(training + content) - before) / len(content),
            }
            for text, content in texts.tests().items()
        }
    return results
