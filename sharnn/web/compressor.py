"""The compressor: a page in which a reader's text becomes a short code, and the code the text."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sharnn.exact.stepper import ExactStepper
from sharnn.web.model_page import ModelPage
from sharnn.web.scripts import worker_source
from sharnn.weights import fingerprint


class CompressorPage(ModelPage):
    """A page that codes a reader's text with the model's predictions, and decodes it again.

    It shows the bits of each byte, and the sizes of the code and of what gzip makes of the same
    text. It saves archives and opens those of `sharnn.compress`: both compute the same predictions
    to the last bit. See `sharnn.web.model_page.ModelPage` for its arguments and methods.

    Example:
        >>> from sharnn import SHARNN, ModelConfig
        >>> page = CompressorPage(SHARNN(ModelConfig(dim=16, boom_dim=64)), text="abc abc").page()
        >>> page[:15]
        '<!doctype html>'
    """

    kind = "compressor"
    scripts = ("archives",)
    title = "Compressor"
    notes = (
        "Bits: -log2 of the probability that the model gave to the byte that came. The first byte "
        "has no context and costs 8 bits.",
        "gzip is computed by the browser, at its default level.",
        "The model is computed in whole numbers and single IEEE 754 operations, so every machine "
        "gets the same predictions to the last bit. Otherwise none could open another's archives.",
    )

    def _payload(self) -> dict[str, Any]:
        """Returns the data of the page, with what archives need, and the size of the model."""
        return {
            **super()._payload(),
            "worker": worker_source(exact=True),
            "fingerprint": list(fingerprint(self.given)),
            "parameters": self.model.parameter_count(),
        }

    def _logits(self, limit: int | None = None) -> Tensor:
        """Returns the logits after each byte of the prepared text, (time, 256)."""
        memory = min(limit or self.model.config.memory, len(self.text))
        stepper = ExactStepper(self.given, memory_limit=memory)
        logits = [stepper.step(np.array([symbol])) for symbol in self.text]
        return torch.from_numpy(np.concatenate(logits))
