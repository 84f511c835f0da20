"""The playground: a page in which a reader writes text and watches the model read it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sharnn.errors import InputError
from sharnn.io.files import write_atomically
from sharnn.model import SHARNN, evaluating
from sharnn.web.arrays import STEP, pack, quantise
from sharnn.web.page import asset, frame, shell, to_json
from sharnn.web.scripts import kernels, web_file, worker_source
from sharnn.weights import usable

SCRIPTS = "bytes arrays colours pane dom tensors engine playground".split()
GUESSES = 8  # for each byte
MAX_TEXT = 2000  # bytes of the prepared text
EXAMPLE = """\
The '''Harrowgate Lighthouse''' is a [[lighthouse]] on the island of [[Torvald]]. It was built in \
1847 by the engineer Elspeth Mackinnon.

== History ==
Mackinnon came to Torvald in 1845. The first plan of the Harrowgate Lighthouse was rejected in \
1846, and the second was accepted in 1847. After a storm in 1903, the Harrowgate Lighthouse was \
closed, and Mackinnon's daughter moved the lamp of the Harrowgate Lighthouse to the museum of \
Torvald.

* [[Torvald]]
* [[Harrowgate Lighthouse]]
"""


class Playground:
    """A page with a model in it, which needs no kernel and no network.

    Displayed at the end of a notebook's cell, it is shown in a frame.

    Args:
        model: a model over bytes.
        name: the model's name, shown as the title.
        text: the prepared text that is shown until the reader starts the model.
        weights: name of a script from `sharnn export --web` that the page around the frame loads,
            see `sharnn.web.book`; None to put the weights into the page.

    Raises:
        InputError: the vocabulary is not that of bytes, the text is too short or too long, or a
            weight is NaN or Inf.

    Example:
        >>> from sharnn import ModelConfig
        >>> page = Playground(SHARNN(ModelConfig(dim=16, boom_dim=64)), text="abc abc").page()
        >>> page[:15]
        '<!doctype html>'
    """

    def __init__(
        self, model: SHARNN, name: str = "", text: str = EXAMPLE, weights: str | None = None
    ) -> None:
        self.model = usable(model)
        if self.model.config.vocab_size != 256:
            raise InputError(
                f"a playground needs a model over bytes, this one has "
                f"{self.model.config.vocab_size} symbols"
            )
        self.text = text.encode()
        if not 2 <= len(self.text) <= MAX_TEXT:
            raise InputError(f"the text must have 2 to {MAX_TEXT:,} bytes, got {len(self.text):,}")
        self.name = name or "A SHA-RNN"
        self.weights = weights

    def page(self) -> str:
        """Returns the page: one HTML document."""
        scripts = [asset(f"{name}.js") for name in SCRIPTS]
        style = asset("page.css") + asset("playground.css")
        before, after = shell(self.name, style, asset("playground.html"), scripts)
        return f"{before}{to_json(self._payload())}{after}"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the page to a file and returns its path.

        Raises:
            InputError: the file can't be written.
        """
        path = Path(path)
        write_atomically(path, self.page().encode())
        return path

    def _repr_html_(self) -> str:
        return frame(self.page(), "Playground", 1100)

    def _payload(self) -> dict[str, Any]:
        """Returns the data of the page."""
        config = self.model.config
        file = web_file(self.model)
        heads = list(config.attention_layers)
        memory = (
            f"a head over {config.memory:,} bytes in block {', '.join(map(str, heads))}"
            if heads
            else "no head"
        )
        about = (
            f"{self.model.parameter_count():,} parameters: {config.layers} blocks of width "
            f"{config.dim}, {memory}. It runs in this page and sends nothing anywhere."
        )
        return {
            "title": self.name,
            "about": about,
            "notes": [
                "Bits: -log2 of the probability that the model gave to the byte that came. "
                "Without memory: the head can attend to the newest byte only.",
            ],
            "head_blocks": heads,
            "size": f"{len(file) / 1e6:.1f} MB",
            "file": None if self.weights else file,
            "shared": self.weights,
            "kernels": kernels(),
            "worker": worker_source(),
            "example": self._example(),
        }

    @torch.no_grad()
    def _example(self) -> dict[str, Any]:
        """Returns the prepared text and what the model makes of it."""
        x = torch.tensor(list(self.text))
        device = next(self.model.parameters()).device
        with evaluating(self.model):
            logits, _, attention = self.model.forward_with_attention(x[None].to(device))
            without, _ = self.model(x[None].to(device), memory_limit=1)
        bits, probabilities = _bits(logits[0].cpu(), x)
        bits_without, _ = _bits(without[0].cpu(), x)
        best = probabilities.topk(GUESSES)
        content: dict[str, Any] = {
            "text": pack(x, "uint8"),
            "bits": pack(bits, "float32"),
            "bits_without": pack(bits_without, "float32"),
            "guesses": pack(best.indices, "uint8"),
            "guess_probabilities": pack(best.values, "float32"),
            "guess_count": GUESSES,
            "initial_target": int((bits_without - bits).argmax()),
            "step": STEP,
            "log2_largest": 0.0,
            "codes": pack(torch.zeros(1), "uint8"),
        }
        if attention:
            weights = next(iter(attention.values()))[0].float().cpu()  # (time, time)
            # By distance: column 0 is the newest row.
            by_distance = torch.stack([row.roll(-i - 1).flip(0) for i, row in enumerate(weights)])
            codes, content["log2_largest"] = quantise(by_distance)
            content["codes"] = pack(codes, "uint8")
        return content


def _bits(logits: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the bits of each byte, (time,), and the predictions (time + 1, 256) before each.

    Nothing is known before the first byte, so it costs 8 bits.
    """
    log2 = F.log_softmax(logits.float(), dim=-1) / torch.log(torch.tensor(2.0))
    log2 = torch.cat([torch.full_like(log2[:1], -8.0), log2])
    return -log2[:-1].gather(1, x[:, None])[:, 0], log2.exp2()
