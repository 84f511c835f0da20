"""The paired comparison of two models, against loops written from its definition."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharnn import InputError
from sharnn.analysis.byte_facts import BYTE_CLASSES, byte_classes
from sharnn.analysis.comparison import compare, distance_names, occurrence_distances
from sharnn.corpora.sample import sample_bytes

TEXT = sample_bytes(6000) + b"never before 0123" + sample_bytes(6000)[:200]
WIDE = (0, 50, 256, 1024, 2048)


def plain_distance(text, position, length):
    """Searches backwards for the bytes before a position."""
    if position < length:
        return math.inf
    wanted = text[position - length : position]
    for back in range(1, position - length + 1):
        if text[position - length - back : position - back] == wanted:
            return back
    return math.inf


def plain_bin(distance):
    if math.isinf(distance):
        return "never"
    for start, stop in pairwise(WIDE):
        if start < distance <= stop:
            return f"{start + 1}-{stop}"
    return "further"


@pytest.fixture(scope="module")
def bits():
    generator = torch.Generator().manual_seed(3)
    return torch.rand(2, len(TEXT) - 1, generator=generator)


@given(text=st.text("ab", max_size=40).map(str.encode), length=st.integers(1, 4))
def test_distances_are_those_of_a_search(text, length):
    expected = [plain_distance(text, position, length) for position in range(len(text))]
    assert occurrence_distances(text, length).tolist() == expected


def test_differences_are_those_of_a_loop_over_the_bytes(bits):
    first, second = bits
    stretch = 500
    found = compare(TEXT, first, second, stretch=stretch)
    kinds = byte_classes(TEXT)
    groups = {"all": {}, "kind": {}, "distance": {}}
    for position in range(1, len(TEXT)):
        pair = (first[position - 1].item(), second[position - 1].item(), (position - 1) // stretch)
        for by, name in (
            ("all", "all bytes"),
            ("kind", BYTE_CLASSES[kinds[position]]),
            ("distance", plain_bin(plain_distance(TEXT, position, 8))),
        ):
            groups[by].setdefault(name, []).append(pair)
    assert {"never", "further", "1-50", "51-256"} <= groups["distance"].keys()
    for by, names in groups.items():
        assert {d.group for d in found[by] if d.count} == names.keys()
        for difference in found[by]:
            pairs = names.get(difference.group, [])
            assert difference.count == len(pairs)
            if not pairs:
                assert math.isnan(difference.difference)
                continue
            mean = sum(b - a for a, b, _ in pairs) / len(pairs)
            assert difference.difference == pytest.approx(mean, abs=1e-6)
            assert difference.second - difference.first == pytest.approx(mean, abs=1e-6)
            parts = {}
            for a, b, part in pairs:
                parts.setdefault(part, []).append(b - a - mean)
            if len(parts) < 2:
                assert math.isnan(difference.error)
                continue
            squares = sum(sum(part) ** 2 for part in parts.values())
            error = math.sqrt(squares * len(parts) / (len(parts) - 1)) / len(pairs)
            assert difference.error == pytest.approx(error, rel=1e-4)


def test_bins_are_named_in_order_and_together_hold_every_byte(bits):
    differences = compare(TEXT, *bits)["distance"]
    assert [d.group for d in differences] == distance_names()
    assert sum(d.count for d in differences) == len(TEXT) - 1


def test_the_pairs_have_a_smaller_spread_than_their_models(bits):
    noise = 10 * bits[0]
    own = compare(TEXT, torch.zeros_like(noise), noise, stretch=100)["all"][0]
    paired = compare(TEXT, noise, noise + 0.1 * bits[1], stretch=100)["all"][0]
    assert paired.error < own.error / 10


@pytest.mark.parametrize(
    ("sizes", "stretch", "message"),
    [((2, 3), 5, "numbers of bits"), ((3, 4), 5, "numbers of bits"), ((3, 3), 0, "stretch")],
)
def test_bits_of_another_text_are_an_error(sizes, stretch, message):
    first, second = (torch.zeros(size) for size in sizes)
    with pytest.raises(InputError, match=message):
        compare(b"abcd", first, second, stretch)
