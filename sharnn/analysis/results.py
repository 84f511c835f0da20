"""The results of `sharnn.attention_statistics`: means over a whole text, with standard errors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sharnn.errors import InputError

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
REPEAT_LENGTHS = (3, 5, 8, 12)  # lengths in bytes of the repeats in the test for induction


@dataclass(frozen=True)
class Estimate:
    """Means and their standard errors, as two tensors of the same shape.

    Neighbouring queries are not independent. The error is therefore estimated from the differences
    between stretches of the text.

    Args:
        value: the means; NaN if there was nothing to count.
        error: one standard error; NaN with fewer than two stretches.
    """

    value: Tensor
    error: Tensor

    @classmethod
    def of(cls, sums: Tensor, counts: Tensor) -> Estimate:
        """Estimates means from the sums and counts of each stretch.

        Args:
            sums: (stretches, ...) sums of the values.
            counts: number of values in each sum, broadcastable to the shape of ``sums``.

        Returns:
            Estimates of shape (...). The value is the total sum over the total count.

        Example:
            >>> Estimate.of(torch.tensor([2.0, 9.0]), torch.tensor([1, 3]))
            Estimate(value=tensor(2.7500), error=tensor(0.3750))
        """
        total = counts.sum(0)
        value = sums.sum(0) / total
        parts = (counts > 0).sum(0)
        spread = ((sums - value * counts) ** 2).sum(0) * parts / (parts - 1)
        error = torch.where(parts > 1, spread.sqrt() / total, torch.nan)
        return cls(value, error)


@dataclass(frozen=True)
class RecalledString:
    """The weight that a string gets while it is in the memory.

    Args:
        text: the string, one token of the text.
        count: number of its occurrences that at least one counted query can see.
        ratio: weight on the key of the string's last byte, the first key computed from the whole
            string, divided by the sum of the even shares of the queries that see this key. 1 is an
            even share. An occurrence that few queries see counts little.
        error: standard error of the ratio, estimated from the differences between occurrences.
        mean_ratio: the same ratio for the keys of all its bytes.
    """

    text: bytes
    count: int
    ratio: float
    error: float
    mean_ratio: float


@dataclass(frozen=True)
class InductionStatistics:
    """A test for induction: attention to the byte that followed the same bytes earlier.

    If the last ``length`` bytes have occurred before, entirely within the keys that a query sees,
    then the query has a follower: the key of the byte after the latest such occurrence. All weights
    are relative to an even share, which is 1.

    Args:
        length: number of bytes that repeat.
        num_queries: number of counted queries that have a follower.
        accuracy: share of these queries whose next byte equals the follower's byte.
        follower: weight on the follower.
        same_byte: mean weight on the other visible keys of the follower's byte, over the queries
            that see any. This is the weight expected by chance.
        lead: ``follower`` minus ``same_byte``, both over the queries of ``same_byte``.
    """

    length: int
    num_queries: int
    accuracy: Estimate
    follower: Estimate
    same_byte: Estimate
    lead: Estimate


@dataclass(frozen=True)
class HeadStatistics:
    """The attention of one head, averaged over all counted queries.

    Args:
        block: index of the head's block.
        by_distance: (max_distance,) mean weight at each distance, in bytes back from the predicted
            byte. Entry 0 is distance 1, the byte just read. Sums to 1.
        mass: (bins,) mean weight in each bin of distances; see `AttentionStatistics`.
        distance: mean distance of the keys, weighted by attention.
        effective_number: mean of 2 to the power of the entropy in bits.
        entropy: mean entropy of the attention weights, in bits.
        largest: mean of each query's largest weight.
        largest_quantiles: quantiles of each query's largest weight, at
            ``sharnn.analysis.results.QUANTILES``.
        by_class: (classes, classes) mean relative weight over all pairs of a query and a key that
            it sees. The first index is the class of the byte just read, the second the class of
            the key's byte, both in the order of ``sharnn.analysis.byte_facts.BYTE_CLASSES``.
        recalled: the strings that occur often enough, in descending order of their ratio.
        induction: a test for each length in ``sharnn.analysis.results.REPEAT_LENGTHS``.
    """

    block: int
    by_distance: Tensor
    mass: Estimate
    distance: Estimate
    effective_number: Estimate
    entropy: Estimate
    largest: Estimate
    largest_quantiles: Tensor
    by_class: Estimate
    recalled: list[RecalledString]
    induction: list[InductionStatistics]

    def within(self, share: float) -> int:
        """Returns the smallest distance within which the head puts a share of its weight.

        Args:
            share: share of the mean weight over all queries, from 0 to 1.

        Returns:
            The distance in bytes back from the predicted byte.
        """
        reached = self.by_distance.cumsum(0) >= share * self.by_distance.sum() - 1e-9
        return int(reached.int().argmax()) + 1


@dataclass(frozen=True)
class AttentionStatistics:
    """Statistics of a model's attention over a whole text.

    Args:
        num_queries: number of counted queries.
        skip: number of leading bytes that were read but whose queries were not counted.
        memory_limit: M, the maximum number of rows a query could attend to.
        bits: bits per byte over the counted queries.
        mean_num_visible: mean number of keys that a query saw.
        bins: first and last distance of each bin. Each bin is twice as wide as the one before.
        even_mass: (bins,) the mass of each bin if every query spread its weight evenly.
        class_queries: (classes,) number of counted queries by the class of the byte just read.
        class_pairs: (classes, classes) number of pairs of a query and a visible key, by class.
        class_targets: (classes,) number of counted queries by the class of the byte they predict.
        class_bits: (classes,) bits per byte by the class of the predicted byte.
        heads: for each block that has a head, the statistics of this head.
    """

    num_queries: int
    skip: int
    memory_limit: int
    bits: Estimate
    mean_num_visible: float
    bins: list[tuple[int, int]]
    even_mass: Tensor
    class_queries: Tensor
    class_pairs: Tensor
    class_targets: Tensor
    class_bits: Estimate
    heads: dict[int, HeadStatistics]

    def head(self, block: int | None = None) -> HeadStatistics:
        """Returns the statistics of one head.

        Args:
            block: index of the head's block; None for the first block that has a head.

        Raises:
            InputError: the block has no head.
        """
        block = min(self.heads) if block is None else block
        if block not in self.heads:
            raise InputError(f"block {block} has no head; blocks with a head: {sorted(self.heads)}")
        return self.heads[block]
