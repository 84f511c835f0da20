"""Where the heads look over a whole file: sums over all queries, gathered in one reading."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sharnn.analysis.byte_facts import BYTE_CLASSES, Array, byte_classes, earlier_ends, tokens
from sharnn.analysis.results import Estimate, HeadSurvey, Induction, Recalled, Survey
from sharnn.analysis.trace import Piece, pieces
from sharnn.data import as_bytes
from sharnn.errors import InputError
from sharnn.model import SHARNN

STRETCHES = 64  # parts of a text that count as independent of each other
REPEATS = (3, 5, 8, 12)  # bytes that must have occurred before, in the test for induction
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
CLASSES = len(BYTE_CLASSES)


def survey(
    model: SHARNN,
    data: Any,
    *,
    memory: int | None = None,
    segment_length: int | None = None,
    skip: int | None = None,
    least: int = 3,
) -> Survey:
    """Reads a text once and sums up where the heads looked.

    Only sums are kept: beyond the model it takes some 150 bytes for each byte of text.

    Args:
        model: the model; it reads in evaluation mode and is left as it was found.
        data: bytes, a path, or a uint8 tensor or array.
        memory: M, the most rows a query may see; None takes the model's.
        segment_length: bytes read at a time; None for 256, or a quarter of M where that is less.
        skip: leading bytes that are read but whose queries don't count; None for M where the text
            is longer than twice that, so that every counted query has a full memory, else 0.
        least: occurrences a string needs to be listed among the recalled.

    Returns:
        The survey, on the CPU.

    Raises:
        InputError: the model has no head, fewer than 2 bytes are there or none is left to count,
            a byte has no symbol in the model, or a setting is not positive.

    Source: paper, simplified attention; the test for induction after Olsson and others, 2022.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> torch.manual_seed(0) and None
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64, memory=100))
        >>> result = survey(model, b"to be or not to be, " * 20)
        >>> result.queries, result.bins[:4], result.head().within(0.9) <= 100
        (299, [(1, 1), (2, 2), (3, 4), (5, 8)], True)
    """
    if not model.config.attention_layers:
        raise InputError("the model has no head to survey: none of its blocks attends")
    source = as_bytes(data)
    size = len(source)
    if size < 2:
        raise InputError(f"at least 2 bytes are needed for a survey, got {size}")
    limit = model.config.memory if memory is None else memory
    if skip is None:
        skip = limit if limit > 0 and size > 2 * limit else 0
    if not 0 <= skip <= size - 2:
        raise InputError(f"skip must be from 0 to {size - 2} for {size} bytes, got {skip}")
    if least < 1:
        raise InputError(f"least must be at least 1, got {least}")
    facts = _Facts(source[0:size].tobytes(), limit, skip, model.embedding.weight.device)
    sums = {block: _HeadSums(facts) for block in model.config.attention_layers}
    for piece in pieces(model, data, memory=memory, segment_length=segment_length):
        if piece.start + len(piece.bits) > skip:
            view = _View(facts, piece)
            facts.add(view, piece.bits)
            for block, head in sums.items():
                head.add(piece.weights[block][view.uncounted :], view)
    strings = _Strings(facts, least)
    return facts.survey({block: head.survey(block, strings) for block, head in sums.items()})


class _Facts:
    """What is known of the text without a head, and the sums that all heads share."""

    def __init__(self, text: bytes, limit: int, skip: int, device: torch.device) -> None:
        self.text, self.limit, self.skip, self.device = text, limit, skip, device
        self.queries = len(text) - 1 - skip
        self.stretches = min(STRETCHES, self.queries)
        self.reach = min(limit, len(text) - 1)  # the farthest distance there can be
        self.symbols = torch.tensor(np.frombuffer(text, dtype=np.uint8), dtype=torch.int64)
        self.classes = torch.tensor(byte_classes(text), dtype=torch.int64)
        # (lengths, bytes) the key after the newest earlier occurrence; 0 where there is none
        self.followers = torch.tensor(np.stack([earlier_ends(text, n) + 1 for n in REPEATS]))
        self.pairs = torch.zeros(self.stretches * CLASSES, CLASSES, dtype=torch.float64)
        self.bits = torch.zeros(self.stretches * CLASSES, dtype=torch.float64)
        self.targets = torch.zeros_like(self.bits)
        self.sizes = torch.zeros(self.reach + 1, dtype=torch.int64)  # queries that see so many keys
        self.shares = torch.zeros(len(text) + 1, dtype=torch.float64)  # differences, over the keys
        self.watchers = torch.zeros(len(text) + 1, dtype=torch.int64)  # how many queries, likewise

    def add(self, view: _View, bits: Tensor) -> None:
        """Counts the queries of one piece."""
        self.pairs.index_add_(0, view.pair_rows, view.seen[:, :CLASSES].cpu().double())
        rows = view.stretch * CLASSES + self.classes[view.own + 1]
        self.bits.index_add_(0, rows, bits[view.uncounted :].cpu().double())
        self.targets.index_add_(0, rows, torch.ones(len(rows), dtype=torch.float64))
        self.sizes += torch.bincount(view.visible, minlength=self.reach + 1)
        share, one = 1 / view.visible.double(), torch.ones_like(view.own)
        self.shares.index_add_(0, view.low, share).index_add_(0, view.own + 1, -share)
        self.watchers.index_add_(0, view.low, one).index_add_(0, view.own + 1, -one)

    @property
    def bins(self) -> list[tuple[int, int]]:
        """1, 2, 3-4, 5-8 and so on, as far as a query can see."""
        lows = [1] + [2**n + 1 for n in range((self.reach - 1).bit_length())]
        return [(low, min(2 * low - 2 or 1, self.reach)) for low in lows]

    def in_bins(self, by_distance: Tensor) -> Tensor:
        """(..., reach) numbers summed to (..., bins)."""
        return torch.stack([by_distance[..., a - 1 : b].sum(-1) for a, b in self.bins], dim=-1)

    def by_stretch(self, sums: Tensor) -> Tensor:
        """(stretches x classes, ...) sums as (stretches, classes, ...)."""
        return sums.unflatten(0, (self.stretches, CLASSES))

    def survey(self, heads: dict[int, HeadSurvey]) -> Survey:
        """All sums made means."""
        visible = torch.arange(self.reach + 1).double()  # (reach + 1,)
        # (reach,) what the queries that see 1, 2 ... keys give to each; all of these that see so
        # far give to a distance.
        shares = self.sizes[1:] / visible[1:] / self.queries
        even = shares.flip(0).cumsum(0).flip(0)  # (reach,)
        bits, targets = self.by_stretch(self.bits), self.by_stretch(self.targets)
        return Survey(
            queries=self.queries,
            skip=self.skip,
            memory=self.limit,
            bits=Estimate.of(bits.sum(1), targets.sum(1)),
            visible_keys=float((self.sizes * visible).sum() / self.queries),
            bins=self.bins,
            even=self.in_bins(even),
            class_queries=torch.bincount(self.classes[self.skip : -1], minlength=CLASSES),
            class_pairs=self.by_stretch(self.pairs).sum(0).long(),
            class_targets=targets.sum(0).long(),
            class_bits=Estimate.of(bits, targets),
            heads=heads,
        )


class _View:
    """One piece as its counted queries see it: what is the same for every head."""

    def __init__(self, facts: _Facts, piece: Piece) -> None:
        time, keys = next(iter(piece.weights.values())).shape
        stop = piece.start + time
        self.first = stop - keys  # place of the oldest key
        self.uncounted = max(0, facts.skip - piece.start)
        self.own = torch.arange(piece.start + self.uncounted, stop)  # (counted,) byte just read
        # A segment never lets a query see more than M keys, and no key older than the first.
        self.low = (self.own - facts.limit + 1).clamp(min=self.first)  # (counted,) oldest seen
        self.visible = self.own - self.low + 1  # (counted,) how many keys
        self.stretch = (self.own - facts.skip) * facts.stretches // facts.queries
        self.pair_rows = self.stretch * CLASSES + facts.classes[self.own]
        # What each key holds: one matrix product then sums the weights by class and by byte.
        inside = slice(self.first, stop)
        symbols, self.column = facts.symbols[inside].unique(return_inverse=True)
        by_class = F.one_hot(facts.classes[inside], CLASSES)
        by_symbol = F.one_hot(self.column, len(symbols))
        # (keys, classes + symbols)
        self.marks = torch.cat([by_class, by_symbol], dim=1).to(facts.device, torch.float32)
        totals = F.pad(self.marks.cumsum(0), (0, 0, 1, 0))  # (keys + 1, classes + symbols)
        self.seen = totals[self.own + 1 - self.first] - totals[self.low - self.first]


class _HeadSums:
    """The sums of one head, most of them one for each stretch of the text."""

    def __init__(self, facts: _Facts) -> None:
        self.facts = facts
        zeros = torch.zeros(facts.stretches, max(facts.reach, CLASSES), dtype=torch.float64)
        self.by_distance = zeros[:, : facts.reach].clone()
        self.pairs = zeros[:, :CLASSES].repeat(CLASSES, 1)  # (stretches x classes, classes)
        self.scalars = zeros.new_zeros(facts.stretches, 4)  # count and those named in `survey`
        self.largest: list[Tensor] = []
        self.received = zeros.new_zeros(len(facts.text))  # (bytes,) weight each key got
        # For each length and stretch: found, right, follower; compared, its follower, same byte.
        self.induction = zeros.new_zeros(len(REPEATS), facts.stretches, 6)

    def add(self, weights: Tensor, view: _View) -> None:
        """Adds the counted queries of one piece; weights (counted, keys)."""
        keys = weights.shape[1]
        self.received[view.first : view.first + keys] += weights.sum(0).cpu().double()
        entropy = -weights.clamp(min=1e-30).log2_().mul_(weights).sum(1)  # (counted,) bits
        largest = weights.amax(1)  # (counted,)
        self.largest.append(largest.cpu())
        scalars = torch.stack([torch.ones_like(entropy), 2**entropy, entropy, largest], dim=1)
        self.scalars.index_add_(0, view.stretch, scalars.cpu().double())
        self._add_by_distance(weights, view)
        mass = weights @ view.marks  # (counted, classes + symbols)
        visible = view.visible[:, None].to(weights)  # (counted, 1)
        relative = (mass[:, :CLASSES] * visible).cpu().double()
        self.pairs.index_add_(0, view.pair_rows, relative)
        self._add_induction(weights, mass[:, CLASSES:], view)

    def _add_by_distance(self, weights: Tensor, view: _View) -> None:
        """Sums the weights along the diagonals, where the distance is the same."""
        counted, keys = weights.shape
        # Each row is one key longer than the one before. With zeros in front, and read with a
        # stride of one number more, all rows end with the byte just read: nothing is moved.
        padded = F.pad(weights, (counted, 0))  # (counted, counted + keys)
        aligned = padded.as_strided((counted, keys), (counted + keys + 1, 1), 1)
        here = view.stretch - view.stretch[0]
        groups = F.one_hot(here).T.to(weights)  # (stretches of the piece, counted)
        sums = (groups @ aligned).flip(1)[:, : self.facts.reach].cpu().double()
        start = int(view.stretch[0])
        self.by_distance[start : start + len(sums), : sums.shape[1]] += sums

    def _add_induction(self, weights: Tensor, mass: Tensor, view: _View) -> None:
        """Compares each follower with the other keys of its byte; mass (counted, symbols)."""
        symbols = self.facts.symbols
        for sums, length, followers in zip(
            self.induction, REPEATS, self.facts.followers, strict=True
        ):
            key = followers[view.own]  # (counted,)
            query = (key - length >= view.low).nonzero()[:, 0]  # the whole occurrence is visible
            key, own, stretch = key[query], view.own[query], view.stretch[query]
            visible = view.visible[query].double()
            hit = weights[query, key - view.first].cpu().double()
            column = view.column[key - view.first]
            same = (mass[query, column].cpu().double() - hit).clamp(min=0)  # but for rounding
            others = view.seen[query, CLASSES + column].cpu().double() - 1
            compared = (others > 0).double()
            chance = same / others.clamp(min=1)  # (found,) 0 where nothing is compared
            right = (symbols[key] == symbols[own + 1]).double()
            hit, chance = hit * visible, chance * visible * compared
            ones = torch.ones_like(hit)
            columns = [ones, right, hit, compared, hit * compared, chance]
            sums.index_add_(0, stretch, torch.stack(columns, dim=1))

    def survey(self, block: int, strings: _Strings) -> HeadSurvey:
        """All sums made means."""
        facts = self.facts
        count, *others = self.scalars.unbind(1)  # (stretches,) each
        number, entropy, largest = (Estimate.of(sums, count) for sums in others)
        distances = torch.arange(1, facts.reach + 1, dtype=torch.float64)
        every_largest = torch.cat(self.largest).double().numpy()
        return HeadSurvey(
            block=block,
            by_distance=self.by_distance.sum(0) / facts.queries,
            mass=Estimate.of(facts.in_bins(self.by_distance), count[:, None]),
            distance=Estimate.of(self.by_distance @ distances, count),
            effective_number=number,
            entropy=entropy,
            largest=largest,
            largest_quantiles=torch.from_numpy(np.quantile(every_largest, QUANTILES)),
            by_class=Estimate.of(facts.by_stretch(self.pairs), facts.by_stretch(facts.pairs)),
            recalled=strings.recalled(self.received),
            induction=[
                _induction(length, sums)
                for length, sums in zip(REPEATS, self.induction, strict=True)
            ],
        )


def _induction(length: int, sums: Tensor) -> Induction:
    """One line of the test from its sums (stretches, 6)."""
    found, right, follower, compared, same_queries, chance = sums.unbind(1)
    return Induction(
        length=length,
        found=int(found.sum()),
        right=Estimate.of(right, found),
        follower=Estimate.of(follower, found),
        same_byte=Estimate.of(chance, compared),
        lead=Estimate.of(same_queries - chance, compared),
    )


class _Strings:
    """The tokens of a text by their strings, and the even shares their rows were due."""

    def __init__(self, facts: _Facts, least: int) -> None:
        shares, watchers = facts.shares.cumsum(0)[:-1], facts.watchers.cumsum(0)[:-1]
        self.shares = torch.where(watchers > 0, shares, 0.0).numpy()  # (bytes,) exactly 0 unseen
        self.texts, which, first, last = tokens(facts.text)
        seen = watchers.numpy()[last] > 0
        self.which, self.first, self.last = which[seen], first[seen], last[seen]
        self.least = least

    def recalled(self, received: Tensor) -> list[Recalled]:
        """The strings that occur often enough, from the most to the least recalled."""
        got, due = received.numpy()[self.last], self.shares[self.last]  # (tokens,) last bytes
        count = self._total(np.ones_like(got))  # (strings,)
        kept = np.flatnonzero(count >= self.least)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self._total(got) / self._total(due)
            spread = self._total((got - ratio[self.which] * due) ** 2) * count / (count - 1)
            error = np.sqrt(spread) / self._total(due)
            everywhere = self._of_all_bytes(received.numpy()) / self._of_all_bytes(self.shares)
        return [
            Recalled(
                self.texts[i], int(count[i]), *(float(v[i]) for v in (ratio, error, everywhere))
            )
            for i in kept[np.argsort(-ratio[kept], kind="stable")]
        ]

    def _total(self, values: Array) -> Array:
        """(tokens,) values summed by string, (strings,)."""
        return np.bincount(self.which, weights=values, minlength=len(self.texts))

    def _of_all_bytes(self, values: Array) -> Array:
        """(bytes,) values summed over each token, then by string."""
        upto = np.concatenate([[0.0], values.cumsum()])
        return self._total(upto[self.last + 1] - upto[self.first])
