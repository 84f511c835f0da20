"""The explorer with a kernel behind it: its page can trace new texts and remove positions.

It needs anywidget. The page and the kernel exchange small dictionaries; ``type`` is the kind of a
request or response.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from sharnn.analysis.explorer import AblationResult, Explorer
from sharnn.analysis.trace import trace_attention
from sharnn.errors import InputError
from sharnn.optional import import_optional

REQUESTS = ("page", "hello", "trace", "ablate")
MAX_MEMORY_LIMIT = 20_000  # rows; more would make a page of many megabytes
MAX_TEXT = 1_000_000  # bytes
MAX_TARGETS = 1024  # the last bytes of a new text, which can be selected


class LiveExplorer:
    """An explorer whose page can run the model: trace another text, remove chosen positions.

    As the last line of a notebook cell it displays itself. On a page without a kernel, the
    explorer that it was made from is displayed instead.

    Args:
        explorer: the explorer to show first.

    Attributes:
        explorer: the current explorer; a new one after each traced text.
        widget: the widget that the notebook displays.

    Raises:
        InputError: anywidget is not installed.
    """

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        anywidget = import_optional("anywidget", "a live explorer")
        script = (files("sharnn.analysis") / "assets" / "live.js").read_text(encoding="utf-8")
        self.widget = anywidget.AnyWidget(_esm=script)
        self.widget.on_msg(lambda _widget, request, _buffers: self._receive(request))

    def respond(self, request: Any) -> dict[str, Any]:
        """Returns the kernel's response to one request of the page.

        Args:
            request: a dictionary with its ``type`` and the fields of that type: ``"page"`` and
                ``"hello"`` have none; ``"trace"`` has ``text`` and ``memory_limit``; ``"ablate"``
                has ``block``, ``target``, and either ``count`` or ``nearest`` and ``farthest``.

        Returns:
            The response; its ``text`` is a line to display. Its type is ``"error"`` if the
            request is invalid.
        """
        kind = _kind(request)
        try:
            match kind:
                case "page":
                    return {"type": "page", "page": self.explorer.page()}
                case "hello":
                    limit = self.explorer.trace.memory_limit
                    return {"type": "hello", "memory_limit": limit, "maximum": MAX_MEMORY_LIMIT}
                case "trace":
                    return self._trace(request)
                case "ablate":
                    return self._ablate(request)
            raise InputError(f"unknown request: its type must be one of {', '.join(REQUESTS)}")
        except InputError as error:
            return {"type": "error", "request": kind, "text": str(error)}

    def _receive(self, request: Any) -> None:
        """Sends exactly one response: the page waits for it, whatever goes wrong."""
        try:
            response = self.respond(request)
        except BaseException as error:  # for example an interrupted kernel
            text = f"the kernel failed: {error!r}"
            self.widget.send({"type": "error", "request": _kind(request), "text": text})
            raise
        self.widget.send(response)

    def _trace(self, request: dict[str, Any]) -> dict[str, Any]:
        limit = request.get("memory_limit")
        if type(limit) is not int or not 1 <= limit <= MAX_MEMORY_LIMIT:
            raise InputError(f"the memory limit must be an integer from 1 to {MAX_MEMORY_LIMIT:,}")
        text = request.get("text")
        if not isinstance(text, str):
            raise InputError("enter some text")
        data = text.encode(errors="surrogatepass")  # half a surrogate pair is shown as its bytes
        if len(data) > MAX_TEXT:
            raise InputError(f"the text has {len(data):,} bytes; the maximum is {MAX_TEXT:,}")
        old = self.explorer
        start = max(1, len(data) - MAX_TARGETS)
        trace = trace_attention(
            old.model, data, targets=MAX_TARGETS, start=start, memory_limit=limit
        )
        self.explorer = Explorer(old.model, trace, old.name, old.megabytes)
        content = self.explorer.content
        line = f"Of {len(data):,} bytes, the last {content['num_targets']:,} can be selected."
        return {"type": "trace", "payload": content, "text": line if start > 1 else ""}

    def _ablate(self, request: dict[str, Any]) -> dict[str, Any]:
        block, target = _integer(request, "block"), _integer(request, "target")
        explorer = self.explorer
        shown = explorer.content["num_targets"]
        if not 0 <= target < shown:
            raise InputError(f"target must be from 0 to {shown - 1}, got {target}")
        index = explorer.trace.num_targets - shown + target  # the page may lack the first targets
        if request.get("count") is not None:
            result = explorer.ablate(index, block=block, count=_integer(request, "count"))
            removed = "the most attended position"
            if result.removed > 1:
                removed = f"the {result.removed:,} most attended positions"
        else:
            near, far = _integer(request, "nearest"), _integer(request, "farthest")
            result = explorer.ablate(index, block=block, between=(near, far))
            removed = f"the positions from {near:,} to {far:,} bytes back"
        text = describe(removed, result)
        return {"type": "ablation", "block": block, "target": target, "text": text}

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the widget, and the static page for front ends without widgets."""
        bundle = self.widget._repr_mimebundle_(**options)
        data, metadata = bundle or ({}, {})
        return {**data, "text/html": self.explorer._repr_html_()}, metadata


def _kind(request: Any) -> str | None:
    """Returns the type of a request, or None for any other message."""
    kind = request.get("type") if isinstance(request, dict) else None
    return kind if isinstance(kind, str) and kind in REQUESTS else None


def _integer(request: dict[str, Any], name: str) -> int:
    """Returns a field of a request that must be an integer of at most 32 bits."""
    value = request.get(name)
    if type(value) is not int:
        raise InputError(f"{name} must be an integer, got {type(value).__name__}")
    if not -(2**31) <= value < 2**31:
        raise InputError(f"{name} must be an integer of at most 32 bits")
    return value


def describe(removed: str, result: AblationResult) -> str:
    """Returns a sentence that describes an ablation, for the page.

    Args:
        removed: the removed positions, in words.
        result: the effect of removing them.

    Example:
        >>> result = AblationResult(4, 0.25, 0.5, -0.001, 0.002)
        >>> print(describe("the 4 most attended positions", result))
        Without the 4 most attended positions (25.0% of the weight): +0.500 bits.
        Without 4 random positions: -0.001 ± 0.002.
    """
    random = f"{result.removed:,} random position{'s' if result.removed > 1 else ''}"
    return (
        f"Without {removed} ({result.weight:.1%} of the weight): {result.bits:+.3f} bits. "
        f"Without {random}: {result.random:+.3f} ± {result.random_std:.3f}."
    )
