"""The playground: a page in which a reader writes text and watches the model read it."""

from __future__ import annotations

from typing import Any

import torch

from sharnn.web.arrays import STEP, pack, quantise, unpack
from sharnn.web.model_page import ModelPage

ROW = (
    "Each byte leaves a row of numbers in the memory, which the LSTMs make from the text up to and "
    "including it."
)


class Playground(ModelPage):
    """A page in which a reader writes text: the bits of each byte, and where the head looked.

    See `sharnn.web.model_page.ModelPage` for its arguments and methods.

    Example:
        >>> from sharnn import SHARNN, ModelConfig
        >>> page = Playground(SHARNN(ModelConfig(dim=16, boom_dim=64)), text="abc abc").page()
        >>> page[:15]
        '<!doctype html>'
    """

    kind = "playground"
    title = "Playground"
    height = 1300
    scripts = ("writer",)
    limits = (None, 1)
    notes = (
        "Bits: \N{MINUS SIGN}log2 of the probability that the model gave to the byte that came. "
        "Without any knowledge a byte costs 8; if the model was sure of another byte, more.",
    )

    def _payload(self) -> dict[str, Any]:
        """Returns the data of the page, with sentences about this model."""
        found = self.record.get("findings", {})
        names = ("bits per byte", "bits per byte with 1 row")
        figures = [float(found[name]) for name in names if name in found]
        return {
            **super()._payload(),
            "typical": figures if len(figures) == len(names) else None,
            "headless": found.get("bits per byte, trained without a head"),
            "warning": self._warning(),
            "reason": (
                f"{ROW} This head finds a row by the row before it: it looks for what came before, "
                "and takes the byte that followed there."
                if self.model.config.shifted_keys
                else f"{ROW} So the row of this byte also shows what came before it; the head "
                "finds it by that, and takes the byte from it."
            ),
        }

    def _example(self) -> dict[str, Any]:
        """Returns the prepared text, and where the head looks for each of its bytes."""
        content = super()._example()
        with_memory, without = (unpack(each) for each in content["bits"])
        content["initial_target"] = int((without - with_memory).argmax())
        content["step"] = STEP
        content["heads"] = []
        for weights in self._attention():
            # By distance: column 0 is the newest row.
            by_distance = torch.stack([row.roll(-i - 1).flip(0) for i, row in enumerate(weights)])
            codes, log2_largest = quantise(by_distance)
            content["heads"].append({"codes": pack(codes, "uint8"), "log2_largest": log2_largest})
        return content
