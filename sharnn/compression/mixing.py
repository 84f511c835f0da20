"""Mixing of predictions: the network's, counts' and matches', bit by bit in the logistic domain."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sharnn.compression.counts import MAX_ORDER, NODES, NUM_CONTEXTS, Counts
from sharnn.compression.logistic import LIMIT, ONE, SQUASH, STRETCH, UNIT, Integers, squash
from sharnn.compression.matching import MIN_LENGTHS, NUM_BUCKETS, WINDOW, History, Matches

PARTS = ("network", "counts", "matches", "final")  # see `Mixer`
BITS = 8  # decisions a byte

# A weight of 1 is 2^20. A sum of weights times inputs is below 2^53, so it is exact in any order,
# even in the float64 numbers of JavaScript.
WEIGHT_SHIFT = 20
# The first weights, in each of the five sets: 0.12 for the network and 0.02 for all others.
NETWORK_WEIGHT = 125_829
OTHER_WEIGHT = 20_972
BIAS = 256
# The learning rate falls with the number of bytes n of a stream: 33 + 131 / (1 + n / 200), in
# units of 2^-16.
RATE_AT_END = 33
RATE_TO_LOSE = 131
RATE_BYTES = 200
GRADIENT_SHIFT = 22  # error (16) + input (10) + rate (16) - weight (20)

# How certain the network is, by its distance from 1/2.
CERTAINTIES = np.array([256, 512, 1024, 1536, 2048, 3072, 4096, 6144])
NUM_CERTAINTIES = len(CERTAINTIES) + 1
# Five sets of weights. The context that selects a row in each set: the longest match, the bits of
# the byte so far, how certain the network is and how many orders were seen, the last byte, and the
# last two bytes.
SET_SIZES = (NUM_BUCKETS + 1, NODES, NUM_CERTAINTIES * (MAX_ORDER + 1), 256, 256**2)
_, NODE_ROWS, CERTAINTY_ROWS, BYTE_ROWS, PAIR_ROWS = np.cumsum((0, *SET_SIZES))[:-1].tolist()

# The final stage: for each node and last byte, probabilities at the 25 whole nats from -12 to 12.
UNIT_SHIFT = 10  # UNIT is 2^10
NUM_POINTS = 25
FINAL_SHIFT = 6  # extra bits of the probabilities, and the rate 1 / 64 at which they adapt


class Mixer:
    """Predicts the bits of each stream's next byte from the network's prediction and the data.

    Three kinds of prediction are mixed: the network's, those of `Counts` and those of `Matches`.
    Each is stretched, x = ln(p / (1 - p)), and the mixed one is p = 1 / (1 + e^(-w x)). The weights
    w are the sum of five rows, each selected by a context. All five learn from each bit: their
    gradient is the error times x. A final stage then corrects the probability by how often the bit
    was 1 after such probabilities and the last byte.

    All numbers are integers, so coder and decoder compute the same ones on any machine. Streams
    share everything that is learned. The calls for each byte are `start`, then 8 times `next` and
    `update`.

    Args:
        num_streams: number of streams.
        parts: what to use of PARTS.

    Source: Mahoney 2005, "Adaptive Weighing of Context Models for Lossless Data Compression"; the
    sets of weights and the final stage are those of the PAQ programs.

    Example:
        >>> mixer = Mixer(num_streams=1)
        >>> for _ in range(50):
        ...     mixer.start(np.full((1, 256), 2.0**16))
        ...     for bit in (0, 1, 0, 0, 0, 0, 0, 1):
        ...         p = mixer.next()
        ...         mixer.update(np.array([bit]))
        >>> bool(p > 0.98 * 2**16)
        True
    """

    def __init__(self, num_streams: int, parts: tuple[str, ...] = PARTS) -> None:
        self.parts = parts
        self.history = History(num_streams)
        self.counts = Counts(num_streams)
        self.matches = Matches(self.history)
        num_inputs = 2 + NUM_CONTEXTS + len(MIN_LENGTHS)  # with the network and the bias
        self._weights = np.full((sum(SET_SIZES), num_inputs), OTHER_WEIGHT)  # (rows, inputs)
        self._weights[:, 0] = NETWORK_WEIGHT
        self._columns = np.arange(num_inputs)
        points = squash(UNIT * (np.arange(NUM_POINTS) - NUM_POINTS // 2))
        self._final = np.tile((points << FINAL_SHIFT).astype(np.int32), 256 * NODES)

    def start(self, frequencies: npt.NDArray[np.int64]) -> None:
        """Begins a byte.

        Args:
            frequencies: (streams, 256), the network's prediction: integers, at least 1. Fewer
                streams than before are the first ones; the others have ended.
        """
        num_streams = len(frequencies)
        recent = self.history.recent(MAX_ORDER)[:num_streams]
        last, before = recent[:, :2].astype(np.int64).T
        self._network = _node_inputs(frequencies)  # (streams, 256)
        if "network" not in self.parts:
            self._network[:] = 0
        self._certainty = CERTAINTY_ROWS + (MAX_ORDER + 1) * np.searchsorted(
            CERTAINTIES, np.abs(self._network), side="right"
        )
        self.counts.start(recent)
        self.matches.start(num_streams)
        self._streams = np.arange(num_streams)
        self._nodes = np.ones(num_streams, dtype=np.int64)
        self._inputs = np.full((num_streams, len(self._columns)), BIAS)
        self._rows = np.empty((num_streams, len(SET_SIZES)), dtype=np.int64)
        self._rows[:, 3] = BYTE_ROWS + last
        self._rows[:, 4] = PAIR_ROWS + 256 * last + before
        self._final_rows = last * NODES
        self._bits: list[Integers] = []
        self._nearest: list[Integers] = []
        n = self.history.length - WINDOW
        self._rate = RATE_AT_END + RATE_TO_LOSE * RATE_BYTES // (RATE_BYTES + n)

    def next(self) -> Integers:
        """Returns the probability that the next bit is 1.

        Returns:
            (streams,) integers from 1 to 2^16 - 1, in units of 2^-16.
        """
        x, rows, nodes = self._inputs, self._rows, self._nodes
        x[:, 0] = self._network[self._streams, nodes]
        x[:, 2 : 2 + NUM_CONTEXTS] = self.counts.next(nodes)
        x[:, 2 + NUM_CONTEXTS :], longest = self.matches.next(nodes, len(self._bits))
        if "counts" not in self.parts:
            x[:, 2 : 2 + NUM_CONTEXTS] = 0
        if "matches" not in self.parts:
            x[:, 2 + NUM_CONTEXTS :] = 0
        rows[:, 0] = longest
        rows[:, 1] = NODE_ROWS + nodes
        rows[:, 2] = self._certainty[self._streams, nodes] + self.counts.num_seen()
        # x_mixed = (w_1 + ... + w_5) x
        weights = self._weights.take(rows, axis=0).sum(axis=1)  # (streams, inputs)
        mixed = (weights * x).sum(axis=1) >> WEIGHT_SHIFT  # (streams,)
        mixed = np.minimum(np.maximum(mixed, -LIMIT), LIMIT)
        self._p = SQUASH.take(mixed + LIMIT)
        if "final" not in self.parts:
            return self._p
        return self._correct(mixed)

    def _correct(self, mixed: Integers) -> Integers:
        """Returns the probabilities that the final stage makes of those that are mixed."""
        distance = mixed + (NUM_POINTS // 2 << UNIT_SHIFT)  # from the first point
        left = (self._final_rows + self._nodes) * NUM_POINTS + (distance >> UNIT_SHIFT)
        beyond = distance & (UNIT - 1)
        self._nearest.append(left + (beyond >> (UNIT_SHIFT - 1)))
        # Between two points the probability is interpolated.
        p, following = self._final.take(left), self._final.take(left + 1)
        p = (p + ((following - p) * beyond >> UNIT_SHIFT)) >> FINAL_SHIFT
        return SQUASH.take(((3 * mixed + STRETCH.take(p)) >> 2) + LIMIT)

    def update(self, bits: Integers) -> None:
        """Learns from the bit.

        Args:
            bits: (streams,), 0 or 1.
        """
        bits = bits.astype(np.int64)
        # w += rate (bit - p) x, rounded
        errors = ((bits << 16) - self._p) * self._rate  # (streams,)
        steps = (errors[:, None] * self._inputs + (1 << (GRADIENT_SHIFT - 1))) >> GRADIENT_SHIFT
        # Integers can be added in any order, so streams may share a row.
        places = (self._rows * len(self._columns))[:, :, None] + self._columns
        steps = steps.repeat(len(SET_SIZES), axis=0)
        np.add.at(self._weights.reshape(-1), places.ravel(), steps.ravel())
        self._nodes = 2 * self._nodes + bits
        self._bits.append(bits)
        if len(self._bits) == BITS:
            self._finish()

    def _finish(self) -> None:
        """Learns from the byte."""
        bits = np.array(self._bits)  # (8, streams)
        symbols = self._nodes - NODES
        self.counts.finish(bits)
        self.matches.finish(symbols)
        self.history.append(symbols)
        if self._nearest:
            nearest = np.array(self._nearest)  # (8, streams)
            p = self._final[nearest]
            self._final[nearest] = p + (((bits << (16 + FINAL_SHIFT)) - p) >> FINAL_SHIFT)


def _node_inputs(frequencies: npt.NDArray[np.int64]) -> Integers:
    """Returns the stretched probability of a 1 bit at each node, (streams, NODES)."""
    tree = np.empty((len(frequencies), 2 * NODES), dtype=np.int64)
    tree[:, NODES:] = frequencies
    first = NODES // 2  # of the nodes whose bytes agree in the bits before the last, and so on
    while first:
        children = tree[:, 2 * first : 4 * first]
        tree[:, first : 2 * first] = children[:, ::2] + children[:, 1::2]
        first //= 2
    inputs = np.zeros((len(frequencies), NODES), dtype=np.int64)
    # p = sum of the frequencies of bytes with a 1 bit / sum of all that agree so far
    inputs[:, 1:] = STRETCH.take(tree[:, 3::2] * ONE // tree[:, 1:NODES])
    return inputs
