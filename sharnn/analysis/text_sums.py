"""Sums over the queries of a text that are the same for every head."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sharnn.analysis.byte_facts import BYTE_CLASSES, byte_classes
from sharnn.analysis.results import AttentionStatistics, Estimate, HeadStatistics
from sharnn.analysis.trace import SegmentTrace

STRETCHES = 64  # parts of a text that are treated as independent of each other
NUM_CLASSES = len(BYTE_CLASSES)


class TextSums:
    """Sums the bits, the byte classes and the numbers of visible keys of all counted queries.

    Args:
        text: the whole text.
        memory_limit: M, the maximum number of rows a query can attend to.
        skip: number of leading bytes whose queries are not counted.
        device: the model's device.
    """

    def __init__(self, text: bytes, memory_limit: int, skip: int, device: torch.device) -> None:
        self.text, self.memory_limit, self.skip, self.device = text, memory_limit, skip, device
        self.num_queries = len(text) - 1 - skip
        self.num_stretches = min(STRETCHES, self.num_queries)
        self.max_distance = min(memory_limit, len(text) - 1)
        self.symbols = torch.tensor(np.frombuffer(text, dtype=np.uint8), dtype=torch.int64)
        self.classes = torch.tensor(byte_classes(text), dtype=torch.int64)
        stretches = self.stretch_of(torch.arange(skip, len(text) - 1))
        self.stretch_sizes = torch.bincount(stretches).double()  # (stretches,) counted queries
        # (stretches x classes, classes) visible keys by class, for each class of the byte just read
        self.pairs = torch.zeros(self.num_stretches * NUM_CLASSES, NUM_CLASSES, dtype=torch.float64)
        # (stretches x classes) by the class of the predicted byte
        self.bits = torch.zeros(self.num_stretches * NUM_CLASSES, dtype=torch.float64)
        self.targets = torch.zeros_like(self.bits)
        # (max_distance + 1,) number of queries that see 0, 1, 2 ... keys
        self.queries_by_num_visible = torch.zeros(self.max_distance + 1, dtype=torch.int64)
        # (bytes + 1,) differences along the keys. Their cumulative sums are, for each key, the sum
        # of the even shares of the queries that see it, and the number of these queries.
        self.even_share_steps = torch.zeros(len(text) + 1, dtype=torch.float64)
        self.viewer_steps = torch.zeros(len(text) + 1, dtype=torch.int64)

    def add(self, queries: SegmentQueries, bits: Tensor) -> None:
        """Adds the counted queries of one segment.

        Args:
            queries: the segment's counted queries.
            bits: (counted,) bits of the byte that each of them predicts.
        """
        class_counts = queries.visible_counts[:, :NUM_CLASSES].cpu().double()
        self.pairs.index_add_(0, queries.class_index, class_counts)
        target = queries.stretch * NUM_CLASSES + self.classes[queries.position + 1]
        self.bits.index_add_(0, target, bits.cpu().double())
        self.targets.index_add_(0, target, torch.ones(len(target), dtype=torch.float64))
        self.queries_by_num_visible += torch.bincount(
            queries.num_visible, minlength=self.max_distance + 1
        )
        share, one = 1 / queries.num_visible.double(), torch.ones_like(queries.position)
        start, stop = queries.oldest, queries.position + 1
        self.even_share_steps.index_add_(0, start, share).index_add_(0, stop, -share)
        self.viewer_steps.index_add_(0, start, one).index_add_(0, stop, -one)

    def stretch_of(self, position: Tensor) -> Tensor:
        """Returns the index of the stretch that contains each counted position."""
        return (position - self.skip) * self.num_stretches // self.num_queries

    @property
    def bins(self) -> list[tuple[int, int]]:
        """First and last distance of each bin: 1, 2, 3-4, 5-8 and so on to the maximum."""
        lows = [1] + [2**n + 1 for n in range((self.max_distance - 1).bit_length())]
        return [(low, min(2 * low - 2 or 1, self.max_distance)) for low in lows]

    def sum_bins(self, by_distance: Tensor) -> Tensor:
        """Sums values (..., max_distance) over each bin, to (..., bins)."""
        return torch.stack([by_distance[..., a - 1 : b].sum(-1) for a, b in self.bins], dim=-1)

    def split_stretches(self, sums: Tensor) -> Tensor:
        """Reshapes sums (stretches x classes, ...) to (stretches, classes, ...)."""
        return sums.unflatten(0, (self.num_stretches, NUM_CLASSES))

    def finish(self, heads: dict[int, HeadStatistics]) -> AttentionStatistics:
        """Divides all sums by their counts and adds the statistics of the heads."""
        num_visible = torch.arange(self.max_distance + 1).double()  # (max_distance + 1,)
        # (max_distance,) share of all weight that the queries with n visible keys, evenly spread,
        # give to each key. All queries with at least d visible keys contribute at distance d.
        shares = self.queries_by_num_visible[1:] / num_visible[1:] / self.num_queries
        even = shares.flip(0).cumsum(0).flip(0)  # (max_distance,)
        bits, targets = self.split_stretches(self.bits), self.split_stretches(self.targets)
        counted_classes = self.classes[self.skip : -1]
        return AttentionStatistics(
            num_queries=self.num_queries,
            skip=self.skip,
            memory_limit=self.memory_limit,
            bits=Estimate.of(bits.sum(1), targets.sum(1)),
            mean_num_visible=float(
                (self.queries_by_num_visible * num_visible).sum() / self.num_queries
            ),
            bins=self.bins,
            even_mass=self.sum_bins(even),
            class_queries=torch.bincount(counted_classes, minlength=NUM_CLASSES),
            class_pairs=self.split_stretches(self.pairs).sum(0).long(),
            class_targets=targets.sum(0).long(),
            class_bits=Estimate.of(bits, targets),
            heads=heads,
        )


class SegmentQueries:
    """The counted queries of one segment, and the keys that each of them sees.

    Args:
        sums: the sums of the whole text.
        segment: a segment with at least one counted query.

    Attributes:
        num_skipped: number of leading queries of the segment that are not counted.
        first_key: position in the text of the oldest key.
        position: (counted,) position in the text of the byte that each query has just read.
        oldest: (counted,) position of the oldest key that each query sees.
        num_visible: (counted,) number of keys that each query sees.
        stretch: (counted,) index of each query's stretch.
        class_index: (counted,) index of each query's stretch and class in sums of the shape
            (stretches x classes, ...).
        symbol_index: (keys,) index of each key's byte among the segment's distinct bytes.
        indicators: (keys, classes + symbols) one-hot codes of each key's class and byte. A matrix
            product with the attention weights sums these by class and by byte.
        visible_counts: (counted, classes + symbols) number of visible keys of each class and byte.
    """

    def __init__(self, sums: TextSums, segment: SegmentTrace) -> None:
        time, keys = next(iter(segment.weights.values())).shape
        stop = segment.start + time
        self.num_skipped = max(0, sums.skip - segment.start)
        self.first_key = stop - keys
        self.position = torch.arange(segment.start + self.num_skipped, stop)
        self.oldest = (self.position - sums.memory_limit + 1).clamp(min=self.first_key)
        self.num_visible = self.position - self.oldest + 1
        self.stretch = sums.stretch_of(self.position)
        self.class_index = self.stretch * NUM_CLASSES + sums.classes[self.position]
        inside = slice(self.first_key, stop)
        symbols, self.symbol_index = sums.symbols[inside].unique(return_inverse=True)
        by_class = F.one_hot(sums.classes[inside], NUM_CLASSES)
        by_symbol = F.one_hot(self.symbol_index, len(symbols))
        indicators = torch.cat([by_class, by_symbol], dim=1)
        self.indicators = indicators.to(sums.device, torch.float32)
        totals = F.pad(self.indicators.cumsum(0), (0, 0, 1, 0))  # (keys + 1, classes + symbols)
        end, start = self.position + 1 - self.first_key, self.oldest - self.first_key
        self.visible_counts = totals[end] - totals[start]
