"""Sums over the queries of a text for one head: distances, spread, classes, strings, induction."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sharnn.analysis.byte_facts import Array, earlier_ends, tokens
from sharnn.analysis.results import (
    QUANTILES,
    REPEAT_LENGTHS,
    Estimate,
    HeadStatistics,
    InductionStatistics,
    RecalledString,
)
from sharnn.analysis.text_sums import NUM_CLASSES, SegmentQueries, TextSums


class HeadSums:
    """Sums the attention weights of one head, mostly for each stretch of the text.

    Args:
        text_sums: the sums that all heads share.
        followers: for each repeat length, (bytes,) the follower of each query, as returned by
            `find_followers`.
    """

    def __init__(self, text_sums: TextSums, followers: dict[int, Tensor]) -> None:
        self.text_sums = text_sums
        num_stretches = text_sums.num_stretches
        zeros = torch.zeros(num_stretches, dtype=torch.float64)
        self.by_distance = zeros.new_zeros(num_stretches, text_sums.max_distance)
        # (stretches x classes, classes) weights relative to an even share
        self.pairs = zeros.new_zeros(num_stretches * NUM_CLASSES, NUM_CLASSES)
        # (stretches,) each
        self.effective_number, self.entropy, self.largest = zeros, zeros.clone(), zeros.clone()
        self.largest_weights: list[Tensor] = []  # of every counted query
        self.received = zeros.new_zeros(len(text_sums.text))  # (bytes,) weight on each key
        self.induction = [
            _InductionSums(text_sums, length, positions) for length, positions in followers.items()
        ]

    def add(self, weights: Tensor, queries: SegmentQueries) -> None:
        """Adds the counted queries of one segment.

        Args:
            weights: (counted, keys) attention weights.
            queries: these queries.
        """
        keys = weights.shape[1]
        self.received[queries.first_key : queries.first_key + keys] += weights.sum(0).cpu().double()
        self._add_spread(weights, queries.stretch)
        self._add_distances(weights, queries.stretch)
        mass = weights @ queries.indicators  # (counted, classes + symbols)
        num_visible = queries.num_visible[:, None].to(weights)  # (counted, 1)
        relative = (mass[:, :NUM_CLASSES] * num_visible).cpu().double()
        self.pairs.index_add_(0, queries.class_index, relative)
        for induction in self.induction:
            induction.add(weights, mass[:, NUM_CLASSES:], queries)

    def _add_spread(self, weights: Tensor, stretch: Tensor) -> None:
        """Adds the entropy and the largest weight of each query; weights (counted, keys)."""
        entropy = -weights.clamp(min=1e-30).log2_().mul_(weights).sum(1)  # (counted,) bits
        largest = weights.amax(1).cpu()  # (counted,)
        self.effective_number.index_add_(0, stretch, (2**entropy).cpu().double())
        self.entropy.index_add_(0, stretch, entropy.cpu().double())
        self.largest.index_add_(0, stretch, largest.double())
        self.largest_weights.append(largest)

    def _add_distances(self, weights: Tensor, stretch: Tensor) -> None:
        """Adds the weights (counted, keys) by distance, which is constant along a diagonal."""
        counted, keys = weights.shape
        # The distance of a query to a fixed key grows by one from each query to the next. After
        # padding with zeros on the left, a stride of one more than the width aligns all queries so
        # that the last column is distance 1. This is a view; nothing is copied.
        padded = F.pad(weights, (counted, 0))  # (counted, counted + keys)
        aligned = padded.as_strided((counted, keys), (counted + keys + 1, 1), 1)
        first = int(stretch[0])
        groups = F.one_hot(stretch - first).T.to(weights)  # (stretches of the segment, counted)
        sums = (groups @ aligned).flip(1)[:, : self.text_sums.max_distance].cpu().double()
        self.by_distance[first : first + len(sums), : sums.shape[1]] += sums

    def finish(self, block: int, strings: StringSums) -> HeadStatistics:
        """Divides all sums by their counts."""
        shared = self.text_sums
        sizes = shared.stretch_sizes
        distances = torch.arange(1, shared.max_distance + 1, dtype=torch.float64)
        largest = torch.cat(self.largest_weights).double().numpy()
        return HeadStatistics(
            block=block,
            by_distance=self.by_distance.sum(0) / shared.num_queries,
            mass=Estimate.of(shared.sum_bins(self.by_distance), sizes[:, None]),
            distance=Estimate.of(self.by_distance @ distances, sizes),
            effective_number=Estimate.of(self.effective_number, sizes),
            entropy=Estimate.of(self.entropy, sizes),
            largest=Estimate.of(self.largest, sizes),
            largest_quantiles=torch.from_numpy(np.quantile(largest, QUANTILES)),
            by_class=Estimate.of(
                shared.split_stretches(self.pairs), shared.split_stretches(shared.pairs)
            ),
            recalled=strings.recalled(self.received),
            induction=[sums.finish() for sums in self.induction],
        )


def find_followers(text: bytes) -> dict[int, Tensor]:
    """Finds the byte after the latest earlier occurrence of the last few bytes.

    Returns:
        For each of ``REPEAT_LENGTHS``, (bytes,) the position of the follower for a query that has
        just read the byte at this index; 0 if there is none.

    Example:
        >>> find_followers(b"abcdabcd")[3].tolist()
        [0, 0, 0, 0, 0, 0, 3, 4]
    """
    return {length: torch.tensor(earlier_ends(text, length) + 1) for length in REPEAT_LENGTHS}


class _InductionSums:
    """Sums over the queries that have a follower, for one repeat length.

    Args:
        text_sums: the sums that all heads share.
        length: number of bytes that repeat.
        followers: (bytes,) position of each query's follower, or 0.
    """

    def __init__(self, text_sums: TextSums, length: int, followers: Tensor) -> None:
        self.symbols, self.length, self.followers = text_sums.symbols, length, followers
        # (stretches,) each; weights are relative to an even share
        zeros = torch.zeros(text_sums.num_stretches, dtype=torch.float64)
        self.num_queries = zeros
        self.num_correct = zeros.clone()  # queries whose next byte equals the follower's byte
        self.follower = zeros.clone()
        # The rest is over the queries that also see other keys with the follower's byte.
        self.num_compared = zeros.clone()
        self.compared_follower = zeros.clone()
        self.same_byte = zeros.clone()

    def add(self, weights: Tensor, mass: Tensor, queries: SegmentQueries) -> None:
        """Adds the weights on followers, and on the other keys with the same byte.

        Args:
            weights: (counted, keys) attention weights.
            mass: (counted, symbols) the same weights summed by byte.
            queries: the counted queries.
        """
        key = self.followers[queries.position]  # (counted,)
        # A follower counts only if the whole earlier occurrence is visible.
        query = (key - self.length >= queries.oldest).nonzero()[:, 0]  # (found,)
        key, position, stretch = key[query], queries.position[query], queries.stretch[query]
        num_visible = queries.num_visible[query].double()
        weight = weights[query, key - queries.first_key].cpu().double()
        symbol = queries.symbol_index[key - queries.first_key]
        # Without the lower bound, rounding could make the difference slightly negative.
        same_mass = (mass[query, symbol].cpu().double() - weight).clamp(min=0)
        num_others = queries.visible_counts[query, NUM_CLASSES + symbol].cpu().double() - 1
        correct = (self.symbols[key] == self.symbols[position + 1]).double()
        follower = weight * num_visible
        compared = (num_others > 0).double()
        same_byte = same_mass / num_others.clamp(min=1) * num_visible
        self.num_queries.index_add_(0, stretch, torch.ones_like(follower))
        self.num_correct.index_add_(0, stretch, correct)
        self.follower.index_add_(0, stretch, follower)
        self.num_compared.index_add_(0, stretch, compared)
        self.compared_follower.index_add_(0, stretch, follower * compared)
        self.same_byte.index_add_(0, stretch, same_byte * compared)

    def finish(self) -> InductionStatistics:
        """Divides all sums by their counts."""
        return InductionStatistics(
            length=self.length,
            num_queries=int(self.num_queries.sum()),
            accuracy=Estimate.of(self.num_correct, self.num_queries),
            follower=Estimate.of(self.follower, self.num_queries),
            same_byte=Estimate.of(self.same_byte, self.num_compared),
            lead=Estimate.of(self.compared_follower - self.same_byte, self.num_compared),
        )


class StringSums:
    """Sums the weight on the visible tokens of a text by string.

    Args:
        text_sums: the sums of the whole text, complete.
        min_count: minimum number of visible occurrences of a string.
    """

    def __init__(self, text_sums: TextSums, min_count: int) -> None:
        even_shares = text_sums.even_share_steps.cumsum(0)[:-1]
        num_viewers = text_sums.viewer_steps.cumsum(0)[:-1]
        # (bytes,) exactly 0 for a key that no counted query sees
        self.even_shares = torch.where(num_viewers > 0, even_shares, 0.0).numpy()
        self.texts, which, first, last = tokens(text_sums.text)
        visible = num_viewers.numpy()[last] > 0
        self.which, self.first, self.last = which[visible], first[visible], last[visible]
        self.min_count = min_count

    def recalled(self, received: Tensor) -> list[RecalledString]:
        """Returns the strings that occur often enough, in descending order of their ratio.

        Args:
            received: (bytes,) the weight on each key.
        """
        weight, even = received.numpy()[self.last], self.even_shares[self.last]  # (tokens,)
        count = self._total(np.ones_like(weight))  # (strings,)
        kept = np.flatnonzero(count >= self.min_count)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self._total(weight) / self._total(even)
            spread = self._total((weight - ratio[self.which] * even) ** 2) * count / (count - 1)
            error = np.sqrt(spread) / self._total(even)
            mean_ratio = self._total_of_all_bytes(received.numpy()) / self._total_of_all_bytes(
                self.even_shares
            )
        return [
            RecalledString(
                text=self.texts[i],
                count=int(count[i]),
                ratio=float(ratio[i]),
                error=float(error[i]),
                mean_ratio=float(mean_ratio[i]),
            )
            for i in kept[np.argsort(-ratio[kept], kind="stable")]
        ]

    def _total(self, values: Array) -> Array:
        """Adds up values (tokens,) and returns one total per string, (strings,)."""
        return np.bincount(self.which, weights=values, minlength=len(self.texts))

    def _total_of_all_bytes(self, values: Array) -> Array:
        """Sums values (bytes,) over the bytes of each token, then by string, to (strings,)."""
        cumulative = np.concatenate([[0.0], values.cumsum()])
        return self._total(cumulative[self.last + 1] - cumulative[self.first])
