"""A reading: the bits are those of bits_per_byte, the weights those of the model, by distance."""

import math

import pytest
import torch

from sharnn import InputError, bits_per_byte
from sharnn.analysis.trace import pieces, read
from sharnn.data import Window, as_bytes
from small import small_model

TEXT = bytes(torch.randint(256, (300,), generator=torch.Generator().manual_seed(5)).tolist())
M = 24


@pytest.mark.parametrize("window", ["segment", "sliding"])
@pytest.mark.parametrize("segment_length", [1, 5, 20])
def test_the_bits_are_those_of_bits_per_byte(window, segment_length):
    """60 bytes are read before the watching starts, so both cut the text alike."""
    model = small_model(memory_window=window)
    settings = {"memory": 61, "segment_length": segment_length}
    reading = read(model, TEXT, start=100, watched=70, **settings)
    assert reading.text == TEXT[39:170]
    assert reading.bits.dtype == torch.float32
    assert reading.bits.isnan().tolist() == [True] + [False] * 130
    expected = bits_per_byte(model, reading.text, batch_size=1, **settings)
    assert reading.bits.nanmean().item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("window", ["segment", "sliding"])
def test_the_pieces_bits_are_those_of_bits_per_byte(window):
    model = small_model(memory_window=window)
    bits = torch.cat([piece.bits for piece in pieces(model, TEXT, segment_length=7)])
    expected = bits_per_byte(model, TEXT, batch_size=1, segment_length=7)
    assert bits.mean().item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("window", ["segment", "sliding"])
@pytest.mark.parametrize("heads", [(1,), (0, 1, 2)])
@pytest.mark.parametrize(
    ("start", "segment_length"), [(1, 6), (10, 7), (40, 6), (40, 30), (200, 1)]
)
def test_the_weights_are_the_models_by_distance(window, heads, start, segment_length):
    model = small_model(memory_window=window, attention_layers=heads)
    reading = read(model, TEXT, start=start, watched=50, segment_length=segment_length)
    first = min(start, M)
    text = torch.tensor(list(TEXT[start - first : start + 50]))
    assert (reading.first, reading.memory, reading.watched) == (first, M, 50)
    assert sorted(reading.weights) == list(heads)
    state = None
    segments = [
        *text[: first - 1].split(segment_length),
        *text[first - 1 : -1].split(segment_length),
    ]
    query = -(first - 1)  # the row of the reading; below 0 while nothing is watched
    with torch.no_grad():
        for x in filter(len, segments):
            logits, state, attention = model(x[None], state, return_attention=True)
            for i in range(len(x)):
                if query >= 0:
                    expected = logits[0, i].softmax(-1)
                    torch.testing.assert_close(reading.probabilities[query], expected)
                    bits = -math.log2(expected[text[first + query]])
                    assert reading.bits[first + query].item() == pytest.approx(bits, abs=1e-4)
                for block, weights in attention.items():
                    if query < 0:
                        continue
                    row = weights[0, i]
                    own = len(row) - len(x) + i  # the query's own key: distance 1
                    by_distance = row[: own + 1].flip(0)[:M]
                    seen = int((by_distance > 0).sum())
                    assert reading.visible[query] == seen
                    padded = torch.zeros(M)
                    padded[: len(by_distance)] = by_distance
                    torch.testing.assert_close(reading.weights[block][query], padded)
                query += 1
    assert query == 50


@pytest.mark.parametrize("window", ["segment", "sliding"])
@pytest.mark.parametrize("start", [1, 5, 100])
def test_each_row_sums_to_1_over_what_is_visible(window, start):
    reading = read(small_model(memory_window=window), TEXT, start=start, watched=70)
    weights = reading.weights[1]
    assert weights.shape == (70, M)
    torch.testing.assert_close(weights.sum(-1), torch.ones(70))
    torch.testing.assert_close(reading.probabilities.sum(-1), torch.ones(70))
    assert torch.equal(weights > 0, torch.arange(M) < reading.visible[:, None])


def test_the_first_watched_query_starts_a_segment():
    reading = read(small_model(), TEXT, start=100, watched=20, segment_length=7)
    fresh = [M - 7 + 1 + i for i in range(7)]
    last = [M - 6 + 1 + i for i in range(6)]  # a shorter segment trims less
    assert reading.visible.tolist() == fresh + fresh + last
    sliding = small_model(memory_window="sliding")
    reading = read(sliding, TEXT, start=100, watched=20, segment_length=7)
    assert reading.visible.tolist() == [M] * 20


def test_nothing_farther_than_the_memory_is_read():
    model = small_model()
    expected = read(model, TEXT[100 - M :], start=M, watched=30)
    reading = read(model, TEXT, start=100, watched=30)
    assert reading.text == expected.text == TEXT[100 - M : 130]
    torch.testing.assert_close(reading.bits, expected.bits, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(reading.weights, expected.weights, rtol=0, atol=0)
    source = Window(as_bytes(TEXT), 100 - M, 130)
    reading = read(model, source, start=M, watched=30)
    assert reading.text == expected.text


@pytest.mark.parametrize(
    ("size", "watched", "start", "count"),
    [
        (300, 100, M, 100),  # after a full memory
        (110, 100, 10, 100),  # too short for that: all are watched
        (90, 100, 1, 89),  # too short for that as well
        (2, 1, 1, 1),
    ],
)
def test_where_watching_starts_by_itself(size, watched, start, count):
    reading = read(small_model(), TEXT[:size], watched=watched)
    assert reading.first == start
    assert reading.watched == len(reading.visible) == len(reading.weights[1]) == count
    assert reading.text == TEXT[: start + count]


def test_the_last_byte_can_be_watched():
    reading = read(small_model(), TEXT, start=299)
    assert reading.watched == 1
    assert reading.text[reading.first :] == TEXT[-1:]


@pytest.mark.parametrize("memory", [1, 3, 1000])
def test_the_memory_can_be_any_length(memory):
    reading = read(small_model(), TEXT, start=50, watched=9, memory=memory)
    assert reading.memory == memory
    assert reading.first == min(50, memory)
    assert reading.weights[1].shape == (9, memory)
    assert reading.visible.max() == min(memory, 58)


def test_a_path_and_bytes_give_the_same(tmp_path):
    (tmp_path / "f").write_bytes(TEXT)
    one, other = (read(small_model(), data, watched=5) for data in (TEXT, tmp_path / "f"))
    assert torch.equal(one.weights[1], other.weights[1])


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_left_and_dropout_is_off(training):
    model = small_model(dropout=0.5).train(training)
    one, other = (read(model, TEXT, watched=5) for _ in range(2))
    assert torch.equal(one.probabilities, other.probabilities)
    assert not one.probabilities.requires_grad
    assert model.training == training


@pytest.mark.parametrize(
    ("data", "settings", "words"),
    [
        (b"", {}, "at least 2 bytes are needed to watch one, got 0"),
        (b"a", {}, "at least 2 bytes are needed to watch one, got 1"),
        (b"abc", {"start": 0}, "start must be from 1 to 2, the data's last byte, got 0"),
        (b"abc", {"start": 3}, "got 3"),
        (b"abc", {"start": -1}, "got -1"),
        (b"abc", {"watched": 0}, "watched must be at least 1, got 0"),
        (b"abc", {"memory": 0}, "memory must be at least 1, got 0"),
        (b"abc", {"segment_length": 0}, "segment_length must be at least 1, got 0"),
        ("nowhere", {}, "does not exist"),
    ],
)
def test_what_can_not_be_read(data, settings, words):
    with pytest.raises(InputError, match=words) as caught:
        read(small_model(), data, **settings)
    assert "\n" not in str(caught.value)


def test_a_model_without_a_head_is_refused():
    with pytest.raises(InputError, match="the model has no head"):
        read(small_model(attention_layers=()), TEXT)


def test_bytes_without_a_symbol_are_refused():
    with pytest.raises(InputError, match="byte 200, but the model has 100 symbols"):
        read(small_model(vocab_size=100), b"abc\xc8")
