"""The page about the memory: a stream that moves, and the bits of a text under shorter memories."""

from __future__ import annotations

from typing import Any

import torch

from sharnn.web.arrays import pack
from sharnn.web.model_page import ModelPage


class MemoryPage(ModelPage):
    """A page in which a stream passes segment and memory, and a reader shortens the memory.

    It shows which rows each query can attend to under both memory windows, and the bits of a text
    by the length of the memory. See `sharnn.web.model_page.ModelPage` for its arguments and
    methods.

    Example:
        >>> from sharnn import SHARNN, ModelConfig
        >>> page = MemoryPage(SHARNN(ModelConfig(dim=16, boom_dim=64)), text="abc abc").page()
        >>> page[:15]
        '<!doctype html>'
    """

    kind = "memory"
    title = "Memory: a stream that moves, and a text under shorter memories"
    scripts = ("chart", "stream")
    needs_head = True
    notes = (
        "Bits: -log2 of the probability that the model gave to the byte that came. In sections 3 "
        "and 4 the text is read byte by byte, so that each query can attend to exactly the newest "
        "rows, its own included.",
    )

    def _payload(self) -> dict[str, Any]:
        return {**super()._payload(), "memory": self.model.config.memory}

    def _example(self) -> dict[str, Any]:
        """Returns the prepared text, and its bits under each length of the memory."""
        content = super()._example()
        lengths = memory_lengths(len(self.text), self.model.config.memory)
        rows = [self._bits(self._logits(length)) for length in lengths]
        content["lengths"] = lengths
        content["bits_by_length"] = pack(torch.stack(rows), "float32")
        return content


def memory_lengths(size: int, limit: int) -> list[int]:
    """Returns lengths of the memory for a text: powers of 2, and all rows that it can have.

    Args:
        size: the length of the text in bytes.
        limit: the model's M.

    Example:
        >>> memory_lengths(size=10, limit=2048), memory_lengths(size=10, limit=5)
        ([1, 2, 4, 8, 10], [1, 2, 4, 5])
    """
    largest = min(size, limit)
    return [*(2**i for i in range((largest - 1).bit_length())), largest]
