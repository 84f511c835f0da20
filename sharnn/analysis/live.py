"""The explorer with a kernel behind it: it answers what its page asks.

It needs anywidget (``pip install "sharnn[book]"``). The page and the kernel send each other small
dictionaries; ``what`` names the question or the answer.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from sharnn.analysis.explorer import Explorer, Loss
from sharnn.analysis.trace import read
from sharnn.errors import InputError

LONGEST_MEMORY = 20_000  # rows; more would make a page of many megabytes
LONGEST_TEXT = 1_000_000  # bytes
WATCHED = 1024  # bytes of a new text, the last ones, that can be chosen


class LiveExplorer:
    """An explorer whose page can ask the model: read this text, remove these positions.

    The last line of a notebook's cell shows it. In a page without a kernel it is the explorer that
    it was made from.

    Args:
        explorer: what it shows first.

    Attributes:
        explorer: what it shows now; another after each text that was read.
        widget: what the notebook displays.

    Raises:
        InputError: anywidget is missing.
    """

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        try:
            import anywidget
        except ImportError as error:
            raise InputError("a live explorer needs anywidget: pip install anywidget") from error
        script = (files("sharnn.analysis") / "assets" / "live.js").read_text(encoding="utf-8")
        self.widget = anywidget.AnyWidget(_esm=script)
        self.widget.on_msg(lambda _widget, question, _buffers: self._receive(question))

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """What the kernel answers to one question of the page.

        Args:
            question: ``what`` and, depending on it, more: ``"page"``; ``"hello"``; ``"read"`` with
                ``text`` and ``memory``; ``"remove"`` with ``block``, ``chosen`` and either
                ``count`` or ``nearest`` and ``farthest``.

        Returns:
            The answer, with a line to show as its ``text``; ``"problem"`` where the question makes
            no sense.
        """
        try:
            match question.get("what"):
                case "page":
                    return {"what": "page", "page": self.explorer.page()}
                case "hello":
                    memory = self.explorer.reading.memory
                    return {"what": "hello", "memory": memory, "longest": LONGEST_MEMORY}
                case "read":
                    return self._read(question)
                case "remove":
                    return self._remove(question)
            raise InputError(f"the page asked for {question.get('what')!r}")
        except InputError as error:
            return {"what": "problem", "about": question.get("what"), "text": str(error)}

    def _receive(self, question: dict[str, Any]) -> None:
        try:
            self.widget.send(self.answer(question))
        except Exception as error:
            # The page waits for an answer; whatever went wrong, it must hear of it.
            about, text = question.get("what"), f"the kernel failed: {error!r}"
            self.widget.send({"what": "problem", "about": about, "text": text})
            raise

    def _read(self, question: dict[str, Any]) -> dict[str, Any]:
        memory = question.get("memory")
        if type(memory) is not int or not 1 <= memory <= LONGEST_MEMORY:
            raise InputError(f"memory must be a whole number from 1 to {LONGEST_MEMORY:,}")
        text = question.get("text")
        if not isinstance(text, str):
            raise InputError("give a text to read")
        data = text.encode(errors="surrogatepass")  # half a surrogate pair is shown as its bytes
        if len(data) > LONGEST_TEXT:
            raise InputError(f"the text has {len(data):,} bytes, {LONGEST_TEXT:,} are the most")
        old = self.explorer
        start = max(1, len(data) - WATCHED)
        reading = read(old.model, data, watched=WATCHED, start=start, memory=memory)
        self.explorer = Explorer(old.model, reading, old.name, old.megabytes)
        content = self.explorer.content
        text = f"Of {len(data):,} bytes the last {content['watched']:,} can be chosen."
        return {"what": "reading", "payload": content, "text": text if start > 1 else ""}

    def _remove(self, question: dict[str, Any]) -> dict[str, Any]:
        block, chosen = _whole(question, "block"), _whole(question, "chosen")
        explorer = self.explorer
        shown = explorer.content["watched"]
        if not 0 <= chosen < shown:
            raise InputError(f"chosen must be from 0 to {shown - 1}, got {chosen}")
        byte = explorer.reading.watched - shown + chosen  # the page may have dropped the first ones
        if question.get("count") is not None:
            loss = explorer.bits_lost(byte, block=block, count=_whole(question, "count"))
            those = f"the {loss.removed:,} most attended"
        else:
            near, far = _whole(question, "nearest"), _whole(question, "farthest")
            loss = explorer.bits_lost(byte, block=block, between=(near, far))
            those = f"the {loss.removed:,} from {near:,} to {far:,} back"
        return {"what": "removed", "block": block, "chosen": chosen, "text": in_words(those, loss)}

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget for whoever can show it, and the page as it is for whoever can't."""
        bundle = self.widget._repr_mimebundle_(**options)
        data, metadata = bundle or ({}, {})
        return {**data, "text/html": self.explorer._repr_html_()}, metadata


def _whole(question: dict[str, Any], name: str) -> int:
    """A whole number in a question."""
    value = question.get(name)
    if type(value) is not int:
        raise InputError(f"{name} must be a whole number")
    return value


def in_words(those: str, loss: Loss) -> str:
    """A loss as the page says it.

    Args:
        those: the removed positions.
        loss: what the prediction lost without them.

    Returns:
        A sentence.

    Example:
        >>> in_words("the 4 most attended", Loss(4, 0.25, 0.5, -0.001, 0.002))
        'Without the 4 most attended, which have 25.0% of the weight: +0.500 bits;
        without as many at random: -0.001 ± 0.002.'
    """
    return (
        f"Without {those}, which have {loss.weight:.1%} of the weight: {loss.bits:+.3f} bits; "
        f"without as many at random: {loss.random:+.3f} ± {loss.spread:.3f}."
    )
