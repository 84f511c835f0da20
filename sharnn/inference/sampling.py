"""Writing with a model: one byte after another, each drawn from the model's distribution."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sharnn.errors import InputError
from sharnn.inference.stepper import Stepper
from sharnn.model import SHARNN, require_finite


def generate(
    model: SHARNN,
    prompt: bytes,
    length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    weights: str = "float32",
) -> bytes:
    """Continues a prompt.

    Args:
        model: the model; its training mode is left as it was found.
        prompt: what the model reads first; an empty one stands for a line's start.
        length: bytes to write.
        temperature: divides the logits; below 1 is more cautious, 0 takes the likeliest byte.
        top_k: draw from the k likeliest bytes only; None for all.
        top_p: draw from the likeliest bytes that together have this probability; None for all.
        seed: the same seed writes the same bytes on the same machine; None for a new draw.
        weights: ``"float32"``, or ``"int8"``, which is faster where the model is large.

    Returns:
        The ``length`` bytes that follow the prompt, without it. They need not be valid UTF-8.

    Raises:
        InputError: a setting is out of range.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64))
        >>> len(generate(model, b"The ", 10, seed=1))
        10
    """
    return bytes(stream(model, prompt, length, temperature, top_k, top_p, seed, weights))


def stream(
    model: SHARNN,
    prompt: bytes,
    length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    weights: str = "float32",
) -> Iterator[int]:
    """As `generate`, one byte at a time.

    Args:
        model, prompt, length, temperature, top_k, top_p, seed, weights: see `generate`.

    Yields:
        Each byte as it is drawn.

    Raises:
        InputError: a setting is out of range.
    """
    for symbols in _streams(model, [prompt], length, temperature, top_k, top_p, seed, weights):
        yield symbols[0]


def generate_batch(
    model: SHARNN,
    prompts: Sequence[bytes],
    length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    weights: str = "float32",
) -> list[bytes]:
    """Continues several prompts side by side: more bytes a second than one after the other.

    Args:
        model: as in `generate`.
        prompts: what each text starts with; name one several times to get several texts.
        length: bytes to write of each.
        temperature, top_k, top_p, weights: as in `generate`.
        seed: text ``i`` is drawn with ``seed + i``; None for new draws.

    Returns:
        What follows each prompt.

    Raises:
        InputError: a setting is out of range, or there is no prompt.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64))
        >>> [len(text) for text in generate_batch(model, [b"The ", b"A"], 10, seed=1)]
        [10, 10]
    """
    if not prompts:
        raise InputError("there must be at least one prompt")
    columns = list(
        _streams(model, prompts, length, temperature, top_k, top_p, seed, weights)
    )  # (length, batch)
    return [bytes(column[i] for column in columns) for i in range(len(prompts))]


def _streams(
    model: SHARNN,
    prompts: Sequence[bytes],
    length: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    weights: str,
) -> Iterator[list[int]]:
    """One more byte of every text at a time."""
    for prompt in prompts:
        _check(model, prompt, length, temperature, top_k, top_p, seed)
    randoms = [torch.Generator() for _ in prompts]
    for i, random in enumerate(randoms):
        if seed is None:
            random.seed()
        else:
            random.manual_seed(seed + i)
    stepper = Stepper(model, len(prompts), weights)
    logits = stepper.read([prompt or b"\n" for prompt in prompts]).cpu()
    for i in range(length):
        symbols = [
            draw(row, temperature, top_k, top_p, random)
            for row, random in zip(logits, randoms, strict=True)
        ]
        yield symbols
        if i + 1 < length:
            x = torch.tensor(symbols, device=model.embedding.weight.device)
            logits = stepper.step(x).cpu()


def draw(
    logits: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    random: torch.Generator,
) -> int:
    """Draws one symbol.

    Args:
        logits: (vocab_size,), on the CPU.
        temperature, top_k, top_p: see `generate`.
        random: where chance comes from, on the CPU.

    Returns:
        The symbol.

    Raises:
        InputError: the logits are not finite.

    Example:
        >>> draw(torch.tensor([0.0, 5.0, 1.0]), 0.0, None, None, torch.Generator())
        1
    """
    logits = logits.double()
    require_finite(logits)
    if temperature == 0:
        return int(logits.argmax())
    sorted_logits, symbols = logits.sort(descending=True, stable=True)  # (vocab_size,) both
    # The largest becomes 0, so that no temperature makes it infinite.
    probabilities = torch.softmax((sorted_logits - sorted_logits[0]) / temperature, dim=-1)
    kept = len(symbols) if top_k is None else min(top_k, len(symbols))
    if top_p is not None:
        # A symbol stays while those before it have less than top_p, so one always stays.
        before = probabilities.cumsum(0) - probabilities
        kept = min(kept, max(1, int((before < top_p).sum())))
    choice = torch.multinomial(probabilities[:kept], 1, generator=random)
    return int(symbols[choice])


def _check(
    model: SHARNN,
    prompt: bytes,
    length: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
) -> None:
    if not isinstance(prompt, (bytes, bytearray)):
        raise InputError(f"prompt must be bytes, got {type(prompt).__name__}: encode text first")
    if prompt and max(prompt) >= model.config.vocab_size:
        raise InputError(
            f"the prompt holds byte {max(prompt)}, "
            f"but the model has {model.config.vocab_size} symbols"
        )
    if seed is not None and not 0 <= seed < 2**63:
        raise InputError(f"seed must be at least 0 and below 2**63, got {seed}")
    if length < 0:
        raise InputError(f"length must be at least 0, got {length}")
    if not 0 <= temperature < float("inf"):
        raise InputError(f"temperature must be at least 0, got {temperature}")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k must be at least 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p must be more than 0 and at most 1, got {top_p}")


def printable(prompt: bytes, written: Iterator[int]) -> Iterator[str]:
    r"""Text that a terminal can show, as soon as its bytes are there.

    Bytes that are no UTF-8, and control characters that could command a terminal, become U+FFFD.

    Args:
        prompt: bytes that come first.
        written: bytes one by one.

    Yields:
        Pieces of text.

    Example:
        >>> "".join(printable(b"caf", iter(b"\xc3\xa9 \x1b\xff")))
        'café ��'
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    yield _without_controls(decoder.decode(prompt))
    for byte in written:
        yield _without_controls(decoder.decode(bytes([byte])))
    yield _without_controls(decoder.decode(b"", final=True))


def _without_controls(text: str) -> str:
    return "".join(
        "\ufffd" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text
    )
