"""Units of the LSTMs that react most to links, digits and line ends, found on a text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sharnn.model import SHARNN, evaluating

NUMBERS = ("input gate", "forget gate", "candidate", "output gate", "cell")  # of a unit
RANKED = ("input gate", "forget gate", "output gate", "cell")
# Where a kind of byte occurs: only the group counts.
KINDS = {
    "inside links": re.compile(rb"\[\[([^\[\]\n]+)\]\]"),
    "at digits": re.compile(rb"([0-9])"),
    "at line ends": re.compile(rb"(\n)"),
}
SEGMENT = 512  # bytes
FEWEST = 5  # bytes of a kind in each half of a text; with fewer, nothing is said about that kind


@dataclass(frozen=True)
class Reaction:
    """A unit, one of its numbers, and its mean at one kind of byte and elsewhere."""

    place: str  # a key of `KINDS`
    block: int
    unit: int
    number: str  # one of `RANKED`
    there: float
    elsewhere: float

    @property
    def words(self) -> str:
        """The two means in words."""
        words = f"{self.number} {self.there:.2f}, elsewhere {self.elsewhere:.2f}"
        return words.replace("-", "\N{MINUS SIGN}")


def kind_mask(text: bytes, place: str) -> Tensor:
    """Returns True for each byte of a kind, (bytes,).

    Example:
        >>> kind_mask(b"a [[b]]", "inside links").int().tolist()
        [0, 0, 0, 0, 1, 0, 0]
    """
    mask = torch.zeros(len(text), dtype=torch.bool)
    for match in KINDS[place].finditer(text):
        mask[match.start(1) : match.end(1)] = True
    return mask


def find_units(model: SHARNN, text: bytes, count: int = 3) -> list[Reaction]:
    r"""Finds the units that react most to each kind of byte.

    A number of a unit, a gate or its cell, reacts to a kind of byte if its mean after reading such
    bytes differs from its mean after all others. The size of a reaction is the difference divided
    by the standard deviation within the two groups. The largest of many sizes is partly chance, so
    units are chosen on the first half of the text, and their means are those of the second half.

    Args:
        model: the model.
        text: a text with bytes of these kinds.
        count: number of units for each kind.

    Returns:
        The reactions, kind by kind, the largest first. A kind with fewer than 5 bytes in one half
        has none.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64))
        >>> [reaction.place for reaction in find_units(model, b"a 1 \n" * 10, count=1)]
        ['at digits', 'at line ends']
    """
    half = len(text) // 2
    first = torch.arange(len(text)) < half
    groups, places = [], []
    for place in KINDS:
        mask = kind_mask(text, place)
        quarters = [mask & first, ~mask & first, mask & ~first, ~mask & ~first]
        if min(int(quarter.sum()) for quarter in quarters) >= FEWEST:
            places.append(place)
            groups += quarters
    if not places:
        return []
    masks = torch.stack(groups).double()  # (groups, time)
    total = squares = torch.zeros(())
    start = 0
    for numbers in lstm_numbers(model, text):  # (blocks, 5, time, dim)
        here = masks[:, start : start + numbers.shape[2]]
        total = total + torch.einsum("gt,bntd->gnbd", here, numbers.double())
        squares = squares + torch.einsum("gt,bntd->gnbd", here, numbers.double() ** 2)
        start += numbers.shape[2]
    size = masks.sum(dim=1).view(-1, 1, 1, 1)
    means = total / size  # (groups, 5, blocks, dim)
    variances = (squares / size - means**2).clamp(min=0)
    rows = [NUMBERS.index(number) for number in RANKED]
    reactions = []
    for k, place in enumerate(places):
        at, other, at_later, other_later = means[4 * k : 4 * k + 4, rows]
        deviation = variances[4 * k : 4 * k + 2, rows].mean(dim=0).sqrt()
        sizes = (at - other).abs() / deviation.clamp(min=1e-6)  # (4, blocks, dim)
        best, number = sizes.max(dim=0)  # each unit once, with the number that reacts most
        for i in best.flatten().topk(min(count, best.numel())).indices.tolist():
            block, unit = divmod(i, best.shape[1])
            index = number[block, unit], block, unit
            means_later = float(at_later[index]), float(other_later[index])
            reactions.append(Reaction(place, block, unit, RANKED[int(index[0])], *means_later))
    return reactions


@torch.no_grad()
def lstm_numbers(model: SHARNN, text: bytes) -> Iterator[Tensor]:
    """Yields the numbers of all units after each byte of a text, segment by segment.

    Yields:
        (blocks, 5, time, dim), on the CPU: sigma(i), sigma(f), tanh(g), sigma(o) and c.
    """
    found: list[Tensor] = []

    def keep(lstm: nn.Module, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        x, state = inputs
        hidden, cell = state if state is not None else (torch.zeros_like(x[:, 0]),) * 2
        found.append(_numbers(lstm, x[0], output[0][0], hidden[0], cell[0]).float().cpu())

    hooks = [block.lstm.register_forward_hook(keep) for block in model.blocks]
    device = next(model.parameters()).device
    state = None
    try:
        with evaluating(model):
            for segment in torch.tensor(list(text))[None].to(device).split(SEGMENT, dim=1):
                _, state = model(segment, state)
                yield torch.stack(found)
                found.clear()
    finally:
        for hook in hooks:
            hook.remove()


def _numbers(lstm: nn.Module, x: Tensor, output: Tensor, hidden: Tensor, cell: Tensor) -> Tensor:
    """Returns (5, time, dim) for inputs and outputs of an LSTM, (time, dim) each."""
    w, u, b, b_hidden = (
        lstm.get_parameter(f"{name}_l0")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    before = torch.cat([hidden[None], output[:-1]])  # (time, dim)
    # [i f g o] = W x + b + U h + b'
    i, f, g, o = (x @ w.T + b + before @ u.T + b_hidden).chunk(4, dim=-1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    cells = []
    for kept, added in zip(f, i * g, strict=True):
        cell = kept * cell + added  # c = sigma(f) c + sigma(i) tanh(g)
        cells.append(cell)
    return torch.stack([i, f, g, o, torch.stack(cells)])
