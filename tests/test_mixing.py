"""Mixing: coder and decoder in step, the same numbers everywhere, parts that earn their bits."""

import hashlib
import math

import numpy as np
import pytest

from sharnn.compression.logistic import LIMIT, ONE, SQUASH, STRETCH, UNIT, squash, stretch
from sharnn.compression.matching import BUCKETS, EQUAL_BITS, NUM_BUCKETS, History, Matches
from sharnn.compression.mixing import PARTS, SET_SIZES, Mixer

TOTAL = 2**24
UNIFORM = np.full(256, TOTAL // 256)


def pseudo_random(count, seed=1):
    """Bytes of a linear congruential generator: the same with every version of numpy."""
    values = np.empty(count, dtype=np.int64)
    for i in range(count):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        values[i] = seed >> 56
    return values


def words(count, seed=1):
    """A text of words that are drawn from a small vocabulary, with lines and repeated phrases."""
    draws = pseudo_random(count, seed).tolist()
    vocabulary = [
        bytes(97 + (7 * k + k * k * j + j) % 26 for j in range(2 + k % 7)) for k in range(60)
    ]
    text = b""
    for draw in draws:
        ending = b".\n" if draw % 16 == 0 else b" "
        text += vocabulary[draw % 60 if draw < 200 else 0] + ending
    return np.frombuffer(text, dtype=np.uint8).astype(np.int64)


def hints(symbols, seed=5):
    """Frequencies of a network that gives the right byte half of the probability, if it is right.

    It is right two times of three; otherwise it gives it to another byte.
    """
    draws = pseudo_random(len(symbols), seed)
    favourites = np.where(draws < 170, symbols, draws)
    frequencies = np.full((len(symbols), 256), TOTAL // 512)
    frequencies[np.arange(len(symbols)), favourites] += TOTAL // 2
    return frequencies


def probabilities(streams, frequencies=None, parts=PARTS, num_streams=None):
    """The probabilities of all bits, (steps, 8, streams), and the bits themselves."""
    mixer = Mixer(num_streams or len(streams), parts)
    steps = streams.shape[1]
    p, bits = np.empty((2, steps, 8, len(streams)), dtype=np.int64)
    uniform = np.tile(UNIFORM, (len(streams), 1))
    for step in range(steps):
        mixer.start(uniform if frequencies is None else frequencies[:, step])
        for bit in range(8):
            bits[step, bit] = streams[:, step] >> (7 - bit) & 1
            p[step, bit] = mixer.next()
            mixer.update(bits[step, bit])
    return p, bits


def bits_per_byte(streams, frequencies=None, parts=PARTS, begin=0):
    p, bits = probabilities(streams, frequencies, parts)
    costs = -np.log2(np.where(bits == 1, p, ONE - p) / ONE)  # (steps, 8, streams)
    return costs[begin:].sum(axis=1).mean()


class BinaryEncoder:
    """An exact arithmetic coder of bits: the interval is a pair of integers, as large as needed."""

    def __init__(self):
        self.low, self.size, self.shift = 0, 1, 0

    def write(self, bit, p):
        part = self.size * p
        self.low = (self.low << 16) + (0 if bit else part)
        self.size = part if bit else (self.size << 16) - part
        self.shift += 16

    def number(self):
        """The shortest binary fraction in the interval, and its number of bits."""
        for length in range(self.shift + 1):
            step = self.shift - length
            number = -(-self.low >> step)
            if number << step < self.low + self.size:
                return number, length
        raise AssertionError("the interval is empty")


class BinaryDecoder:
    def __init__(self, number, length):
        self.number, self.length = number, length
        self.low, self.size, self.shift = 0, 1, 0

    def read(self, p):
        part = self.size * p
        self.shift += 16
        self.low <<= 16
        bit = int(self.number << self.shift < (self.low + part) << self.length)
        self.low += 0 if bit else part
        self.size = part if bit else (self.size << 16) - part
        return bit


def test_squash_is_the_logistic_function():
    x = np.arange(-LIMIT, LIMIT + 1)
    expected = [ONE / (1 + math.exp(-value / UNIT)) for value in x.tolist()]
    assert np.abs(squash(x) - np.clip(expected, 1, ONE - 1)).max() <= 0.5 + 1e-9
    assert (squash(x) + squash(-x) == ONE).all()
    assert squash(np.array([-(10**9), 10**9])).tolist() == [1, ONE - 1]


def test_stretch_is_the_inverse_of_squash():
    p = np.arange(1, ONE)
    assert (np.diff(stretch(p)) >= 0).all()
    # Near 1/2 the table of squash skips some probabilities.
    assert np.abs(squash(stretch(p)) - p).max() <= 16
    extremes = np.concatenate((p[:500], p[-500:]))
    assert (squash(stretch(extremes)) == extremes).all()


def test_tables_are_the_same_everywhere():
    digest = hashlib.sha256(SQUASH.astype("<i8").tobytes() + STRETCH.astype("<i8").tobytes())
    assert digest.hexdigest() == "55fd277aed9c5aa0d568b1ddf0988f8a26aa1499a077046940ccc91b593de4e1"


def golden(p):
    return hashlib.sha256(p.astype("<i8").tobytes()).hexdigest()


def test_probabilities_are_the_same_everywhere():
    noise = pseudo_random(900).reshape(3, 300)
    text = words(400)[:1200].reshape(3, 400)
    frequencies = hints(text.ravel()).reshape(3, 400, 256)
    assert (
        golden(probabilities(noise)[0])
        == "f24e9c4e377201a9e49c6380db359a19ce0b07b5c2cc3a3efed90357c4e3b9ea"
    )
    assert (
        golden(probabilities(text, frequencies)[0])
        == "7b477c549e47b617a751e622fc9ea25989a082b227d0936fbde6d83b64c5ce66"
    )


def test_a_text_is_restored():
    text = words(60)[:250]
    lengths = [84, 83, 83]
    starts = [0, 84, 167]
    frequencies = hints(text)

    def code(content, coder):
        mixer = Mixer(3)
        for step in range(84):
            active = [lane for lane in range(3) if lengths[lane] > step]
            places = [starts[lane] + step for lane in active]
            mixer.start(frequencies[places].astype(np.float64))
            symbols = np.zeros(len(active), dtype=np.int64)
            for bit in range(8):
                p = mixer.next()
                known = content[places] >> (7 - bit) & 1
                bits = [coder(int(b), int(q)) for b, q in zip(known, p, strict=True)]
                mixer.update(np.array(bits))
                symbols = 2 * symbols + bits
            content[places] = symbols

    encoder = BinaryEncoder()
    code(text.copy(), lambda bit, p: encoder.write(bit, p) or bit)
    number, length = encoder.number()
    assert length < 6 * len(text), "it is a text"
    decoder = BinaryDecoder(number, length)
    restored = np.zeros_like(text)
    code(restored, lambda _, p: decoder.read(p))
    assert (restored == text).all()


def test_streams_that_are_never_used_change_nothing():
    text = words(300)[:900].reshape(3, 300)
    assert (probabilities(text)[0] == probabilities(text, num_streams=7)[0]).all()


def test_streams_share_what_they_learn():
    phrase = words(150)[:400]
    alone = bits_per_byte(phrase[None])
    late = np.stack((phrase, np.roll(phrase, 100)))  # the second stream repeats the first one
    p, bits = probabilities(late)
    costs = -np.log2(np.where(bits == 1, p, ONE - p) / ONE).sum(axis=1)  # (steps, streams)
    assert costs[100:, 1].mean() < 0.3 * alone


@pytest.fixture(scope="module")
def sample():
    """A text in streams, the network's hints, and the bits per byte with all parts."""
    block = pseudo_random(100)
    lines = [[*words(150, seed)[:400], *block, *block] for seed in range(8)]
    text = np.array([np.roll(line, 37 * seed) for seed, line in enumerate(lines)])
    frequencies = hints(text.ravel()).reshape(8, 600, 256)
    return text, frequencies, bits_per_byte(text, frequencies)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_earns_bits(part, sample):
    text, frequencies, with_all = sample
    without = tuple(name for name in PARTS if name != part)
    assert bits_per_byte(text, frequencies, without) > 1.001 * with_all


def test_probabilities_are_never_0_or_1():
    zeros = np.zeros((2, 1500), dtype=np.int64)
    zeros[1] = 255
    p, _ = probabilities(zeros)
    assert p.min() >= 1
    assert p.max() <= ONE - 1


def test_a_constant_stream_costs_nearly_nothing():
    assert bits_per_byte(np.full((1, 1500), 65), begin=500) < 0.005


def test_a_long_repeat_costs_nearly_nothing():
    noise = pseudo_random(800)
    assert bits_per_byte(np.concatenate((noise, noise))[None], begin=840) < 0.05


def test_noise_costs_little_more_than_8_bits():
    assert bits_per_byte(pseudo_random(4000).reshape(8, 500)) < 8.3


def test_a_bad_network_is_soon_ignored():
    text = words(400)[None, :1200]
    wrong = np.ones((1, text.shape[1], 256), dtype=np.int64)
    wrong[:, :, 0] += TOTAL - 256
    network = -math.log2(1 / TOTAL)  # bits for each byte
    without = bits_per_byte(text)
    assert bits_per_byte(text, wrong) < without + 0.02 * network
    assert bits_per_byte(text, wrong, begin=600) < 1.05 * bits_per_byte(text, begin=600)


def test_a_good_network_is_trusted():
    text = pseudo_random(1200)[None]
    right = np.ones((1, text.shape[1], 256), dtype=np.int64)
    right[0, np.arange(text.shape[1]), text[0]] += TOTAL - 256
    assert bits_per_byte(text, right, begin=500) < 0.1


def test_streams_that_share_weights_add_their_steps():
    text = words(100)[:200].reshape(4, 50)
    mixer = Mixer(4)
    frequencies = hints(text.ravel()).reshape(4, 50, 256)
    for step in range(50):
        mixer.start(frequencies[:, step])
        for bit in range(8):
            mixer.next()
            expected = {row: mixer._weights[row].tolist() for row in mixer._rows.ravel().tolist()}
            bits = text[:, step] >> (7 - bit) & 1
            for lane in range(4):
                error = (int(bits[lane]) << 16) - int(mixer._p[lane])
                for column, x in enumerate(mixer._inputs[lane].tolist()):
                    change = (error * mixer._rate * x + 2**21) >> 22
                    for row in mixer._rows[lane].tolist():
                        expected[row][column] += change
            mixer.update(bits)
            for row, weights in expected.items():
                assert mixer._weights[row].tolist() == weights


def test_sums_are_exact_in_javascript():
    text = words(200)[None, :600]
    mixer = Mixer(1)
    for symbol in text[0].tolist():
        mixer.start(UNIFORM[None])
        for bit in range(8):
            mixer.next()
            mixer.update(np.array([symbol >> (7 - bit) & 1]))
    largest = np.abs(mixer._weights).max() * len(SET_SIZES) * LIMIT * mixer._inputs.shape[1]
    assert largest < 2**50


def test_buckets_of_lengths():
    assert BUCKETS[:18].tolist() == [*range(16), 16, 16]
    assert (np.diff(BUCKETS) >= 0).all()
    assert BUCKETS.max() == NUM_BUCKETS - 1
    assert [int(EQUAL_BITS[difference]) for difference in (0, 1, 2, 128, 255)] == [8, 7, 6, 0, 0]


def test_a_match_is_found_and_followed():
    history = History(1)
    matches = Matches(history)
    phrase = [*b"0123456789abcdefghijklmnop"]
    for symbol in [*phrase, *phrase[:20]]:
        matches.start(1)
        history.append(np.array([symbol]))
        matches._lengths, lengths = matches._lengths, matches._lengths
        matches.finish(np.array([symbol]))
    assert lengths[0, 1] == 19, "the shorter match began after 7 bytes and counts them"
    matches.start(1)
    assert matches._expected[0].tolist() == [256 + phrase[20]] * 2
