"""What a survey of attention holds: means over a whole text, with their standard errors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sharnn.errors import InputError


@dataclass(frozen=True)
class Estimate:
    """Means and their standard errors, the same shape both.

    Neighbouring queries are not independent, so the error is taken between stretches of the text.

    Args:
        value: the means; not a number where there was nothing to count.
        error: one standard error; not a number with fewer than two stretches.
    """

    value: Tensor
    error: Tensor

    @classmethod
    def of(cls, sums: Tensor, counts: Tensor) -> Estimate:
        """The mean of everything counted, whatever the share of each stretch.

        Args:
            sums: (stretches, ...) sums of what was counted.
            counts: how many there were, of a shape that fits.

        Returns:
            Estimates (...), the sum of all over the number of all.

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
class Recalled:
    """How much weight a string gets wherever it stands in the memory.

    Args:
        text: the string, one token of the text.
        count: its occurrences that at least one counted query could see.
        ratio: weight on its last byte, the first row that has read all of it, over the sum of the
            even shares of the queries that saw this row. 1 is an even share; an occurrence that
            few queries saw counts little.
        error: standard error of the ratio, between occurrences.
        mean_ratio: the same for the rows of all its bytes.
    """

    text: bytes
    count: int
    ratio: float
    error: float
    mean_ratio: float


@dataclass(frozen=True)
class Induction:
    """The test for induction: is the byte found that followed the same bytes before?

    Where the last ``length`` bytes occurred before, whole and among the keys a query sees, the
    follower is the key that has read the byte after the newest such place. All weights are
    relative, 1 is an even share.

    Args:
        length: bytes that are the same.
        found: counted queries that have a follower.
        right: share of them where the follower's byte is the one that came next.
        follower: weight on the follower.
        same_byte: chance, the mean weight on the other visible keys of the follower's byte; over
            the queries that see such keys.
        lead: follower minus chance, over the same queries as chance.
    """

    length: int
    found: int
    right: Estimate
    follower: Estimate
    same_byte: Estimate
    lead: Estimate


@dataclass(frozen=True)
class HeadSurvey:
    """What one head did, over all counted queries.

    Args:
        block: the block that has the head.
        by_distance: (reach,) mean weight at each distance in bytes back from the predicted byte;
            entry 0 is distance 1, the byte just read. Sums to 1.
        mass: (bins,) mean weight in each of the survey's bins of distance.
        distance: mean distance looked at, each key counted by its weight.
        effective_number: mean of 2 to the power of the entropy in bits.
        entropy: mean entropy in bits.
        largest: mean of each query's largest weight.
        largest_quantiles: the largest weights' quantiles, at
            ``sharnn.analysis.statistics.QUANTILES``.
        by_class: (classes, classes) mean relative weight over all pairs of a query and a key it
            sees. Rows are the class of the byte just read, columns that of the key's byte, in the
            order of ``sharnn.analysis.byte_facts.BYTE_CLASSES``.
        recalled: the strings that occur often enough, from the most to the least recalled.
        induction: the test for each length of ``sharnn.analysis.statistics.REPEATS``.
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
    recalled: list[Recalled]
    induction: list[Induction]

    def within(self, share: float) -> int:
        """The distance within which a share of the weight lies.

        Args:
            share: of the mean weight over all queries, 0 to 1.

        Returns:
            The smallest such distance, in bytes back from the predicted byte.
        """
        reached = self.by_distance.cumsum(0) >= share * self.by_distance.sum() - 1e-9
        return int(reached.int().argmax()) + 1


@dataclass(frozen=True)
class Survey:
    """Sums over a whole text of where the heads looked.

    Args:
        queries: counted queries.
        skip: leading bytes that were read and not counted.
        memory: M, the most keys a query could see.
        bits: bits per byte over the counted queries.
        visible_keys: mean number of keys a query saw.
        bins: first and last distance of each bin; the bins double.
        even: (bins,) the mass of each bin if each query spread its weight evenly.
        class_queries: (classes,) counted queries by the class of the byte just read.
        class_pairs: (classes, classes) pairs of a query and a visible key, by their classes.
        class_targets: (classes,) counted queries by the class of the byte they predict.
        class_bits: (classes,) bits per byte, by the class of the predicted byte.
        heads: for each block that has a head what this head did.
    """

    queries: int
    skip: int
    memory: int
    bits: Estimate
    visible_keys: float
    bins: list[tuple[int, int]]
    even: Tensor
    class_queries: Tensor
    class_pairs: Tensor
    class_targets: Tensor
    class_bits: Estimate
    heads: dict[int, HeadSurvey]

    def head(self, block: int | None = None) -> HeadSurvey:
        """What one head did.

        Args:
            block: its block; None for the first that has one.

        Returns:
            Its part of the survey.

        Raises:
            InputError: the block has no head.
        """
        block = min(self.heads) if block is None else block
        if block not in self.heads:
            raise InputError(f"block {block} has no head; those with one: {sorted(self.heads)}")
        return self.heads[block]
