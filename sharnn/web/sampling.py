"""The page of sampling: the next byte's distribution, what is cut off, and text drawn from it."""

from __future__ import annotations

from typing import Any

from sharnn.model import SHARNN
from sharnn.web.arrays import pack
from sharnn.web.model_page import ModelPage, predictions

PROMPT = """\
'''Torvald''' is an island off the west coast of [[Scotland]]. Its first lighthouse was built in \
the """


class SamplingPage(ModelPage):
    """A page in which a reader sets temperature, top-k and top-p and draws bytes one by one.

    See `sharnn.web.model_page.ModelPage` for its arguments and methods; the text is the prompt.

    Example:
        >>> from sharnn import ModelConfig
        >>> page = SamplingPage(SHARNN(ModelConfig(dim=16, boom_dim=64)), text="abc abc").page()
        >>> page[:15]
        '<!doctype html>'
    """

    kind = "sampling"
    title = "Sampling: temperature, top-k and top-p"
    scripts = ("distribution",)
    longest = 300  # the page holds the whole distribution of each byte
    notes = (
        "Before: the model's own prediction. After: what a byte is drawn from. Top-k and top-p cut "
        "after the temperature, and what is kept is scaled to sum to 1. Bits and entropies are in "
        "base 2.",
    )

    def __init__(
        self,
        model: SHARNN | str,
        name: str = "",
        text: str = PROMPT,
        weights: str | None = None,
    ) -> None:
        super().__init__(model, name, text, weights)

    def _payload(self) -> dict[str, Any]:
        return {**super()._payload(), "warning": self._warning()}

    def _example(self) -> dict[str, Any]:
        """Returns the prepared prompt, and the bits of each symbol in place of each byte."""
        content = super()._example()
        probabilities = predictions(self._logits())  # (time + 1, 256)
        content["costs"] = pack(-probabilities.clamp(min=1e-38).log2(), "float32")
        return content
