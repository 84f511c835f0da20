"""Text generation: bytes are sampled one at a time from the model's predictions."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sharnn.errors import InputError
from sharnn.inference.stepper import Stepper
from sharnn.model import SHARNN, require_finite
from sharnn.weights import unwrap

EMPTY_PROMPT = b"\n"  # read instead of an empty prompt
# Unicode has a symbol for each control character of ASCII, but none for U+0080 to U+009F. They are
# shown as the escape sequences of the same meaning: ESC and a character from @ to _.
_CONTROL_SYMBOLS = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\r\n\t"}
_CONTROL_SYMBOLS[0x7F] = "\u2421"
_CONTROL_SYMBOLS |= {code: "\u241b" + chr(code - 0x40) for code in range(0x80, 0xA0)}


@dataclass(frozen=True)
class _Sampling:
    """The checked settings of one call; see `generate`."""

    length: int
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int | None
    storage: str

    def __post_init__(self) -> None:
        if self.length < 0:
            raise InputError(f"length must be at least 0, got {self.length}")
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"temperature must be finite and at least 0, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be more than 0 and at most 1, got {self.top_p}")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be at least 0 and below 2**63, got {self.seed}")

    def generator(self, number: int) -> torch.Generator:
        """Returns the source of random numbers for one of the texts."""
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed + number)
        return generator


def generate(
    model: SHARNN,
    prompt: bytes,
    length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    storage: str = "float32",
) -> bytes:
    """Continues a prompt.

    Args:
        model: the model; its training mode does not change.
        prompt: the bytes to continue; if it is empty, the text starts a new line.
        length: number of bytes to generate.
        temperature: divides the logits; below 1 favours likely bytes, 0 always takes the likeliest.
        top_k: sample from the k likeliest bytes only; None for all.
        top_p: sample from the smallest set of likeliest bytes whose probabilities sum to at least
            ``top_p``; None for all.
        seed: the same seed gives the same bytes on the same machine; None for a random one.
        storage: ``"float32"``, or ``"int8"``, which is faster for large models.

    Returns:
        The ``length`` bytes that follow the prompt, without the prompt. They may not be valid
        UTF-8.

    Raises:
        InputError: a setting is out of range.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64))
        >>> len(generate(model, b"The ", 10, seed=1))
        10
    """
    return bytes(stream(model, prompt, length, temperature, top_k, top_p, seed, storage))


def stream(
    model: SHARNN,
    prompt: bytes,
    length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    storage: str = "float32",
) -> Iterator[int]:
    """Continues a prompt like `generate`, and yields each byte as soon as it is sampled.

    Args:
        model, prompt, length, temperature, top_k, top_p, seed, storage: see `generate`.

    Yields:
        The bytes, one at a time.

    Raises:
        InputError: a setting is out of range.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64))
        >>> len(list(stream(model, b"The ", 10, seed=1)))
        10
    """
    settings = _Sampling(length, temperature, top_k, top_p, seed, storage)
    for symbols in _sample(model, [prompt], settings):
        yield symbols[0]


def generate_batch(
    model: SHARNN,
    prompts: Sequence[bytes],
    length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    storage: str = "float32",
) -> list[bytes]:
    """Continues several prompts in parallel, which gives more bytes per second in total.

    Args:
        model: as in `generate`.
        prompts: the bytes to continue; repeat a prompt for several continuations of it.
        length: number of bytes to generate for each prompt.
        temperature, top_k, top_p, storage: as in `generate`.
        seed: text ``i`` is sampled with ``seed + i``; None for random seeds.

    Returns:
        The continuation of each prompt.

    Raises:
        InputError: a setting is out of range, or ``prompts`` is empty.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64))
        >>> [len(text) for text in generate_batch(model, [b"The ", b"A"], 10, seed=1)]
        [10, 10]
    """
    if not prompts:
        raise InputError("prompts must contain at least one prompt")
    settings = _Sampling(length, temperature, top_k, top_p, seed, storage)
    columns = list(_sample(model, prompts, settings))  # (length, batch)
    return [bytes(column[i] for column in columns) for i in range(len(prompts))]


def _sample(model: SHARNN, prompts: Sequence[bytes], settings: _Sampling) -> Iterator[list[int]]:
    """Yields one more symbol of every text at a time."""
    model = unwrap(model)
    for prompt in prompts:
        _check_prompt(model, prompt)
    generators = [settings.generator(i) for i in range(len(prompts))]
    stepper = Stepper(model, len(prompts), settings.storage)
    logits = stepper.read([prompt or EMPTY_PROMPT for prompt in prompts]).cpu()
    for i in range(settings.length):
        symbols = [
            sample_symbol(
                one_logits, generator, settings.temperature, settings.top_k, settings.top_p
            )
            for one_logits, generator in zip(logits, generators, strict=True)
        ]
        yield symbols
        if i + 1 < settings.length:
            x = torch.tensor(symbols, device=model.embedding.weight.device)
            logits = stepper.step(x).cpu()


def _check_prompt(model: SHARNN, prompt: bytes) -> None:
    """Raises an error unless the prompt consists of bytes in the model's vocabulary."""
    if not isinstance(prompt, (bytes, bytearray)):
        raise InputError(f"prompt must be bytes, got {type(prompt).__name__}: encode text first")
    if prompt and max(prompt) >= model.config.vocab_size:
        raise InputError(
            f"the prompt contains byte {max(prompt)}, "
            f"but the model has {model.config.vocab_size} symbols"
        )


def sample_symbol(
    logits: Tensor,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> int:
    """Samples one symbol.

    Args:
        logits: (vocab_size,), on the CPU.
        generator: source of random numbers, on the CPU.
        temperature, top_k, top_p: see `generate`; they are not checked.

    Raises:
        InputError: the logits are not finite.

    Example:
        >>> sample_symbol(torch.tensor([0.0, 5.0, 1.0]), torch.Generator(), temperature=0.0)
        1
    """
    probabilities, symbols = distribution(logits, temperature, top_k, top_p)
    return int(symbols[torch.multinomial(probabilities, 1, generator=generator)])


def distribution(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the distribution that a symbol is sampled from.

    Args:
        logits: (vocab_size,), on the CPU.
        temperature, top_k, top_p: see `generate`; they are not checked.

    Returns:
        The probabilities of the symbols that are kept, whose sum is the probability of not being
        cut, and these symbols, the likeliest first.

    Raises:
        InputError: the logits are not finite.

    Example:
        >>> probabilities, symbols = distribution(torch.tensor([0.0, 5.0, 1.0]), top_p=0.99)
        >>> probabilities, symbols
        (tensor([0.9756, 0.0179], dtype=torch.float64), tensor([1, 2]))
    """
    logits = logits.double()
    require_finite(logits)
    if temperature == 0:
        return logits.new_ones(1), logits.argmax().view(1)
    sorted_logits, symbols = logits.sort(descending=True, stable=True)  # (vocab_size,) each
    # With a maximum of 0, no temperature makes a logit infinite.
    probabilities = torch.softmax((sorted_logits - sorted_logits[0]) / temperature, dim=-1)
    kept = len(symbols) if top_k is None else min(top_k, len(symbols))
    if top_p is not None:
        # A symbol is kept if the likelier ones sum to less than top_p, so one is always kept.
        before = probabilities.cumsum(0) - probabilities
        kept = min(kept, max(1, int((before < top_p).sum())))
    return probabilities[:kept], symbols[:kept]


def printable(prompt: bytes, generated: Iterator[int]) -> Iterator[str]:
    r"""Decodes generated bytes into text that is safe to print in a terminal.

    Each character is yielded as soon as its last byte has arrived. Bytes that are not valid UTF-8
    become U+FFFD. Control characters other than CR, LF and TAB, which could change the terminal's
    settings, become visible symbols.

    Args:
        prompt: bytes that come first.
        generated: the bytes that follow, one at a time.

    Yields:
        Pieces of text, some of which may be empty.

    Example:
        >>> "".join(printable(b"caf", iter(b"\xc3\xa9 \x1b[0m\xff")))
        'café ␛[0m�'
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    yield decoder.decode(prompt).translate(_CONTROL_SYMBOLS)
    for byte in generated:
        yield decoder.decode(bytes([byte])).translate(_CONTROL_SYMBOLS)
    yield decoder.decode(b"", final=True).translate(_CONTROL_SYMBOLS)
