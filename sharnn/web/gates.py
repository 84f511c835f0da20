"""The page of gates: a unit of an LSTM, its gates and its cell along the reader's own text."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from sharnn.corpora.sample import sample_bytes
from sharnn.io.byte_sources import as_bytes
from sharnn.model import SHARNN
from sharnn.web.arrays import pack
from sharnn.web.model_page import EXAMPLE, ModelPage
from sharnn.web.units import NUMBERS, find_units, kind_mask, lstm_numbers

DATA = 16_384  # bytes of generated text
MAX_DATA = 100_000  # bytes of any other text


class GatesPage(ModelPage):
    r"""A page in which a reader watches a unit of an LSTM read: its gates, candidate and cell.

    The units that react most to links, digits and line ends are offered first. See
    `sharnn.web.model_page.ModelPage` for the other arguments and the methods.

    Args:
        data: a text in which such units are found: bytes, a path, a uint8 array or tensor, or a
            part of a corpus, of which the first 100,000 bytes are read; None for generated text in
            Wikipedia's markup.

    Example:
        >>> from sharnn import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64))
        >>> GatesPage(model, text="a [[b]] 1", data=b"a [[b]] 1\n" * 20).page()[:15]
        '<!doctype html>'
    """

    kind = "gates"
    title = "Gates of an LSTM along a text"
    notes: ClassVar[tuple[str, ...]] = (
        "The units on offer were found by this measure: the difference between the mean of a gate "
        "or the cell after bytes of one kind and its mean after all others, divided by the "
        "standard deviation within the two. They were chosen on the first half of a text; the "
        "numbers beside them are means over its second half.",
    )

    def __init__(
        self,
        model: SHARNN | str,
        name: str = "",
        text: str = EXAMPLE,
        weights: str | None = None,
        data: Any = None,
    ) -> None:
        super().__init__(model, name, text, weights)
        self.data = sample_bytes(DATA) if data is None else as_bytes(data)[:MAX_DATA].tobytes()

    def _payload(self) -> dict[str, Any]:
        """Returns the data of the page."""
        config = self.model.config
        return {
            **super()._payload(),
            "blocks": config.layers,
            "units": config.dim,
            "numbers": NUMBERS,
        }

    def _example(self) -> dict[str, Any]:
        """Returns the prepared text, and the numbers of the units on offer along it."""
        content = super()._example()
        offers = find_units(self.model, self.data)
        numbers = torch.cat(list(lstm_numbers(self.model, self.text)), dim=2)
        units = [(offer.block, offer.unit) for offer in offers] or [(0, 0)]
        shown = torch.stack([numbers[block, :, :, unit] for block, unit in units])
        content["units"] = units
        content["unit_numbers"] = pack(shown, "float32")  # (units, 5, time)
        content["offers"] = [
            {
                "place": offer.place,
                "block": offer.block,
                "unit": offer.unit,
                "number": offer.number,
                "words": offer.words,
            }
            for offer in offers
        ]
        # The first byte that the first unit reacts to.
        first = kind_mask(self.text, offers[0].place).int().argmax() if offers else 0
        content["initial_target"] = int(first)
        return content
