"""Pages with a model in them: what they have in common."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sharnn.checkpoint import SHIPPED, find_model, load
from sharnn.errors import InputError
from sharnn.io.files import write_atomically
from sharnn.model import SHARNN, evaluating
from sharnn.web.arrays import pack
from sharnn.web.page import asset, frame, shell, to_json
from sharnn.web.scripts import kernels, web_file, web_model, worker_source
from sharnn.weights import usable

SCRIPTS = (
    "numbers bytes arrays colours pane dom fields random tensors engine known history kept session"
).split()
# The environment variable that names the model whose weights the pages of a book share.
SHARED_MODEL = "SHARNN_SHARED_MODEL"
GUESSES = 8  # in place of each byte
ORDINALS = "first second third fourth fifth sixth seventh eighth".split()
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


class ModelPage:
    """A page with a model in it, which needs no kernel and no network.

    A subclass sets the name of its elements, its style and its scripts in ``assets``. Displayed at
    the end of a notebook's cell, the page is shown in a frame.

    Args:
        model: a model over bytes, or an argument of `sharnn.load`.
        name: the model's name.
        text: the prepared text that is shown until the reader starts the model.
        weights: name of a script from `sharnn export --web` that the page around the frame loads,
            see `sharnn.web.book`. None puts the weights into the page, except those of a book's own
            model while the book is built.

    Raises:
        InputError: the vocabulary is not that of bytes, the page needs a head and the model has
            none, the text is too short or too long, a weight is NaN or Inf, or the model can't be
            loaded.
    """

    kind: ClassVar[str]  # the name of the page in ``assets``
    package: ClassVar[str] = "sharnn.web"  # that has these assets
    title: ClassVar[str]
    height: ClassVar[int] = 1100  # pixels of a frame, until the page sets its own
    scripts: ClassVar[tuple[str, ...]] = ()  # other scripts than the page's own
    needs_head: ClassVar[bool] = False
    notes: ClassVar[tuple[str, ...]] = ()
    limits: ClassVar[tuple[int | None, ...]] = (None,)  # of the memory, one for each reading
    longest: ClassVar[int] = MAX_TEXT  # bytes of the prepared text

    def __init__(
        self,
        model: SHARNN | str,
        name: str = "",
        text: str = EXAMPLE,
        weights: str | None = None,
    ) -> None:
        self.record: dict[str, Any] = {}  # what was measured of a shipped model
        if isinstance(model, str):
            self.record = shipped_record(model)
            name = name or Path(model).stem
            if weights is None and os.environ.get(SHARED_MODEL) == model:
                weights = shared_script(model)
            model = load(model)
        self.model = usable(model)
        if self.model.config.vocab_size != 256:
            raise InputError(
                f"a page needs a model over bytes, this one has "
                f"{self.model.config.vocab_size} symbols"
            )
        if self.needs_head and not self.model.config.attention_layers:
            raise InputError("the page needs a model with a head, this one has none")
        self.text = text.encode()
        if not 2 <= len(self.text) <= self.longest:
            raise InputError(
                f"the text must have 2 to {self.longest:,} bytes, got {len(self.text):,}"
            )
        self.name = name or "A SHA-RNN"
        self.weights = weights
        self.given = self.model  # an archive names it
        self._file = web_file(self.model)
        self.model = web_model(self.model)  # the prepared numbers are those of the page's model

    def page(self) -> str:
        """Returns the page: one HTML document."""
        scripts = [asset(f"{name}.js") for name in SCRIPTS]
        scripts += [asset(f"{name}.js", self.package) for name in (*self.scripts, self.kind)]
        style = asset("page.css") + asset("model_page.css")
        style += asset(f"{self.kind}.css", self.package)
        elements = asset(f"{self.kind}.html", self.package)
        for part in ("field", "heads"):
            elements = elements.replace(f"    <!-- {part} -->\n", asset(f"{part}.html"))
        body = asset("header.html") + elements + asset("footer.html")
        before, after = shell(f"{self.title} ({self.name})", style, body, scripts)
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
        return frame(self.page(), self.title, self.height)

    def _payload(self) -> dict[str, Any]:
        """Returns the data of the page."""
        config = self.model.config
        heads = list(config.attention_layers)
        about = (
            f"{self.name} has {self.model.parameter_count():,} parameters, the numbers that "
            f"training sets, in {count(config.layers, 'block')}. Text passes one block after the "
            "other; each is an LSTM, which carries a state from byte to byte, and a feed-forward "
            "layer (Boom). "
            f"{describe_heads(heads, config.layers, config.memory)} "
            "It runs in this page and sends nothing anywhere."
        )
        return {
            "title": self.title,
            "name": self.name,
            "about": about,
            "notes": self.notes,
            "head_blocks": heads,
            "limits": self.limits,
            "size": f"{len(self._file) / 1e6:.1f} MB",
            "file": None if self.weights else self._file,
            "shared": self.weights,
            "kernels": kernels(),
            "worker": worker_source(),
            "example": self._example(),
        }

    def _warning(self) -> str:
        """Returns a sentence about the text that the model writes."""
        learned = self.record.get("learned from", "the text that it learned from")
        return (
            f"A model of {self.model.parameter_count() / 1e6:.1f} million parameters imitates the "
            f"look of {learned}; what it writes makes little sense, and its facts are made up."
        )

    def _example(self) -> dict[str, Any]:
        """Returns the prepared text and what the model makes of it."""
        logits = [self._logits(limit) for limit in self.limits]
        best = predictions(logits[0]).topk(GUESSES)
        return {
            "text": pack(self._symbols(), "uint8"),
            "bits": [pack(self._bits(each), "float32") for each in logits],
            "guesses": pack(best.indices, "uint8"),
            "guess_probabilities": pack(best.values, "float32"),
        }

    def _symbols(self) -> Tensor:
        """Returns the prepared text as symbols, (time,)."""
        return torch.tensor(list(self.text), device=self.model.embedding.weight.device)

    @torch.no_grad()
    def _logits(self, limit: int | None = None) -> Tensor:
        """Returns the logits after each byte of the prepared text, (time, 256)."""
        with evaluating(self.model):
            logits, _ = self.model(self._symbols()[None], memory_limit=limit)
        return logits[0].float().cpu()

    def _bits(self, logits: Tensor) -> Tensor:
        """Returns the bits of each byte of the prepared text, (time,); the first costs 8."""
        losses = F.cross_entropy(logits[:-1], self._symbols()[1:].cpu(), reduction="none")
        return torch.cat([losses.new_tensor([8.0]), losses / torch.log(torch.tensor(2.0))])

    @torch.no_grad()
    def _attention(self) -> list[Tensor]:
        """Returns the weights along the prepared text, (time, time) for each head."""
        with evaluating(self.model):
            _, _, attention = self.model.forward_with_attention(self._symbols()[None])
        return [weights[0].float().cpu() for weights in attention.values()]


def count(number: int, noun: str) -> str:
    """Returns a number of things in words.

    Example:
        >>> count(1, "block"), count(4, "block")
        ('1 block', '4 blocks')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def describe_heads(heads: Sequence[int], layers: int, memory: int) -> str:
    """Returns a sentence about the blocks that have a head.

    Example:
        >>> print(describe_heads([2], layers=4, memory=99))
        Only the third also has a head: it compares the present with up to 99 earlier bytes and \
takes most from those that fit best.
        >>> print(describe_heads([0, 2], layers=4, memory=1000)[:40])
        The first and the third also have a head
        >>> print(describe_heads([], layers=4, memory=2048))
        None of them has a head.
    """
    if not heads:
        return "None of them has a head."
    names = [f"the {ORDINALS[i]}" if i < len(ORDINALS) else f"number {i + 1}" for i in heads]
    if len(heads) == layers:
        subject = "It also has" if layers == 1 else "Each also has"
    elif len(heads) == 1:
        subject = f"Only {names[0]} also has"
    else:
        *others, last = names
        subject = f"{', '.join(others)} and {last} also have".capitalize()
    return (
        f"{subject} a head: it compares the present with up to {memory:,} earlier bytes and takes "
        "most from those that fit best."
    )


def shared_script(model: str) -> str:
    """Returns the name of the script that holds a model's weights in the pages of a book."""
    return f"{Path(model).stem}.js"


def predictions(logits: Tensor) -> Tensor:
    """Returns the probabilities before each byte and after the last: (time + 1, 256).

    Nothing is known before the first byte.
    """
    probabilities = F.softmax(logits, dim=-1)
    return torch.cat([torch.full_like(probabilities[:1], 1 / 256), probabilities])


def shipped_record(model: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns what was measured of a model that ships with the package; nothing of another one.

    Raises:
        InputError: there is no such model.

    Example:
        >>> shipped_record("wiki-small")["model"]
        'wiki-small'
    """
    path = find_model(model)
    record = path.with_suffix(".json")
    if path.parent != SHIPPED or not record.is_file():
        return {}
    measured: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    return measured
