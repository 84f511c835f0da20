"""The explorer with a kernel behind it: it answers what its page asks.

It needs anywidget (``pip install "sharnn[book]"``). The page and the kernel send each other small
dictionaries; ``what`` names the question or the answer.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from sharnn.errors import InputError
from sharnn.explorer import Explorer
from sharnn.reading import read

LONGEST_MEMORY = 20_000  # rows; more would make a page of many megabytes
LONGEST_TEXT = 1_000_000  # bytes


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
            raise InputError(
                'a live explorer needs anywidget: pip install "sharnn[book]"'
            ) from error
        script = (files("sharnn") / "assets" / "live.js").read_text(encoding="utf-8")
        self.widget = anywidget.AnyWidget(_esm=script)
        self.widget.on_msg(lambda _widget, question, _buffers: self._receive(question))

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """What the kernel answers to one question of the page.

        Args:
            question: ``what`` and, depending on it, more: ``"page"``; ``"hello"``; ``"read"`` with
                ``text`` and ``memory``; ``"remove"`` with ``block``, ``chosen`` and either
                ``count`` or ``nearest`` and ``farthest``.

        Returns:
            The answer; ``"problem"`` with a line of text where the question makes no sense.
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
        text = str(question.get("text", "")).encode()
        if len(text) > LONGEST_TEXT:
            raise InputError(f"the text has {len(text):,} bytes, {LONGEST_TEXT:,} are the most")
        old = self.explorer
        reading = read(old.model, text, memory=memory)
        self.explorer = Explorer(old.model, reading, old.name, old.megabytes)
        return {"what": "reading", "payload": self.explorer.content}

    def _remove(self, question: dict[str, Any]) -> dict[str, Any]:
        numbers = {name: question.get(name) for name in ("block", "chosen", "count")}
        between = (question.get("nearest"), question.get("farthest"))
        for value in (*numbers.values(), *between):
            if value is not None and type(value) is not int:
                raise InputError("give whole numbers")
        explorer = self.explorer
        dropped = explorer.reading.watched - explorer.content["watched"]
        by_count = numbers["count"] is not None
        loss = explorer.bits_lost(
            dropped + (numbers["chosen"] or 0),
            block=numbers["block"],
            count=numbers["count"],
            between=None if by_count else between,  # type: ignore[arg-type]
        )
        those = (
            f"the {loss.removed:,} most attended"
            if by_count
            else f"the {loss.removed:,} from {between[0]:,} to {between[1]:,} back"
        )
        text = (
            f"Without {those}, which have {loss.weight:.1%} of the weight: {loss.bits:+.3f} bits; "
            f"without as many at random: {loss.random:+.3f} ± {loss.spread:.3f}."
        )
        return {"what": "removed", "chosen": numbers["chosen"], "text": text}

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget for whoever can show it, and the page as it is for whoever can't."""
        bundle = self.widget._repr_mimebundle_(**options)
        data, metadata = bundle or ({}, {})
        return {**data, "text/html": self.explorer._repr_html_()}, metadata
