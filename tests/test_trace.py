"""Traces have the bits of bits_per_byte and the weights of the model, by distance."""

import math

import pytest
import torch

from sharnn import InputError, bits_per_byte
from sharnn.analysis.trace import trace_attention, trace_segments
from sharnn.io.byte_sources import Window, as_bytes
from small import ALL_OPTIONS, OPTIONS, small_model

TEXT = bytes(torch.randint(256, (300,), generator=torch.Generator().manual_seed(5)).tolist())
M = 24


@pytest.mark.parametrize("window", ["segment", "sliding"])
@pytest.mark.parametrize("segment_length", [1, 5, 20])
def test_the_bits_are_those_of_bits_per_byte(window, segment_length):
    """60 bytes precede the first target's query, so both cut the text into the same segments."""
    model = small_model(memory_window=window)
    settings = {"memory_limit": 61, "segment_length": segment_length}
    trace = trace_attention(model, TEXT, start=100, targets=70, **settings)
    assert trace.text == TEXT[39:170]
    assert trace.bits.dtype == torch.float32
    assert trace.bits.isnan().tolist() == [True] + [False] * 130
    expected = bits_per_byte(model, trace.text, batch_size=1, **settings)
    assert trace.bits.nanmean().item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("window", ["segment", "sliding"])
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_the_bits_of_the_segments_are_those_of_bits_per_byte(window, options):
    model = small_model(memory_window=window, **options)
    bits = torch.cat([segment.bits for segment in trace_segments(model, TEXT, segment_length=7)])
    expected = bits_per_byte(model, TEXT, batch_size=1, segment_length=7)
    assert bits.mean().item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("window", ["segment", "sliding"])
@pytest.mark.parametrize("heads", [(1,), (0, 1, 2)])
@pytest.mark.parametrize(
    ("start", "segment_length"), [(1, 6), (10, 7), (40, 6), (40, 30), (200, 1)]
)
@pytest.mark.parametrize("options", [{}, ALL_OPTIONS], ids=str)
def test_the_weights_are_the_models_by_distance(window, heads, start, segment_length, options):
    model = small_model(memory_window=window, attention_layers=heads, **options)
    trace = trace_attention(model, TEXT, start=start, targets=50, segment_length=segment_length)
    first = min(start, M)
    text = torch.tensor(list(TEXT[start - first : start + 50]))
    assert (trace.first, trace.memory_limit, trace.num_targets) == (first, M, 50)
    assert sorted(trace.weights) == list(heads)
    state = None
    segments = [
        *text[: first - 1].split(segment_length),
        *text[first - 1 : -1].split(segment_length),
    ]
    query = -(first - 1)  # index of the target; below 0 before the first one
    with torch.no_grad():
        for x in filter(len, segments):
            logits, state, attention = model(x[None], state, return_attention=True)
            for i in range(len(x)):
                if query >= 0:
                    expected = logits[0, i].softmax(-1)
                    torch.testing.assert_close(trace.probabilities[query], expected)
                    bits = -math.log2(expected[text[first + query]])
                    assert trace.bits[first + query].item() == pytest.approx(bits, abs=1e-4)
                for block, weights in attention.items():
                    if query < 0:
                        continue
                    keys = weights[0, i]
                    own = len(keys) - len(x) + i  # the query's own key: distance 1
                    by_distance = keys[: own + 1].flip(0)[:M]
                    assert trace.num_visible[query] == int((by_distance > 0).sum())
                    padded = torch.zeros(M)
                    padded[: len(by_distance)] = by_distance
                    torch.testing.assert_close(trace.weights[block][query], padded)
                query += 1
    assert query == 50


@pytest.mark.parametrize("window", ["segment", "sliding"])
@pytest.mark.parametrize("start", [1, 5, 100])
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_the_weights_of_each_query_sum_to_1_over_its_visible_keys(window, start, options):
    model = small_model(memory_window=window, **options)
    trace = trace_attention(model, TEXT, start=start, targets=70)
    weights = trace.weights[1]
    assert weights.shape == (70, M)
    torch.testing.assert_close(weights.sum(-1), torch.ones(70))
    torch.testing.assert_close(trace.probabilities.sum(-1), torch.ones(70))
    assert torch.equal(weights > 0, torch.arange(M) < trace.num_visible[:, None])


def test_the_first_targets_query_starts_a_segment():
    trace = trace_attention(small_model(), TEXT, start=100, targets=20, segment_length=7)
    fresh = [M - 7 + 1 + i for i in range(7)]
    last = [M - 6 + 1 + i for i in range(6)]  # a shorter segment trims less
    assert trace.num_visible.tolist() == fresh + fresh + last
    sliding = small_model(memory_window="sliding")
    trace = trace_attention(sliding, TEXT, start=100, targets=20, segment_length=7)
    assert trace.num_visible.tolist() == [M] * 20


def test_nothing_beyond_the_memory_is_read():
    model = small_model()
    expected = trace_attention(model, TEXT[100 - M :], start=M, targets=30)
    trace = trace_attention(model, TEXT, start=100, targets=30)
    assert trace.text == expected.text == TEXT[100 - M : 130]
    torch.testing.assert_close(trace.bits, expected.bits, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(trace.weights, expected.weights, rtol=0, atol=0)
    source = Window(as_bytes(TEXT), 100 - M, 130)
    trace = trace_attention(model, source, start=M, targets=30)
    assert trace.text == expected.text


@pytest.mark.parametrize(
    ("size", "targets", "start", "count"),
    [
        (300, 100, M, 100),  # after a full memory
        (110, 100, 10, 100),  # too short for that, but long enough for 100 targets
        (90, 100, 1, 89),  # too short for 100 targets
        (2, 1, 1, 1),
    ],
)
def test_the_default_start(size, targets, start, count):
    trace = trace_attention(small_model(), TEXT[:size], targets=targets)
    assert trace.first == start
    assert trace.num_targets == len(trace.num_visible) == len(trace.weights[1]) == count
    assert trace.text == TEXT[: start + count]


def test_the_last_byte_can_be_a_target():
    trace = trace_attention(small_model(), TEXT, start=299)
    assert trace.num_targets == 1
    assert trace.text[trace.first :] == TEXT[-1:]


@pytest.mark.parametrize("limit", [1, 3, 1000])
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_the_memory_limit_can_be_any_positive_number(limit, options):
    trace = trace_attention(small_model(**options), TEXT, start=50, targets=9, memory_limit=limit)
    assert trace.memory_limit == limit
    assert trace.first == min(50, limit)
    assert trace.weights[1].shape == (9, limit)
    assert trace.num_visible.max() == min(limit, 58)


def test_a_path_and_bytes_give_the_same_trace(tmp_path):
    (tmp_path / "f").write_bytes(TEXT)
    one, other = (
        trace_attention(small_model(), data, targets=5) for data in (TEXT, tmp_path / "f")
    )
    assert torch.equal(one.weights[1], other.weights[1])


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored_and_dropout_is_off(training):
    model = small_model(dropout=0.5).train(training)
    one, other = (trace_attention(model, TEXT, targets=5) for _ in range(2))
    assert torch.equal(one.probabilities, other.probabilities)
    assert not one.probabilities.requires_grad
    assert model.training == training


@pytest.mark.parametrize(
    ("data", "settings", "words"),
    [
        (b"", {}, "at least 2 bytes are needed for a prediction, got 0"),
        (b"a", {}, "at least 2 bytes are needed for a prediction, got 1"),
        (b"abc", {"start": 0}, "start must be from 1 to 2, the offset of the last byte, got 0"),
        (b"abc", {"start": 3}, "got 3"),
        (b"abc", {"start": -1}, "got -1"),
        (b"abc", {"targets": 0}, "targets must be at least 1, got 0"),
        (b"abc", {"memory_limit": 0}, "memory_limit must be at least 1, got 0"),
        (b"abc", {"segment_length": 0}, "segment_length must be at least 1, got 0"),
        ("nowhere", {}, "does not exist"),
    ],
)
def test_invalid_input_is_an_error(data, settings, words):
    with pytest.raises(InputError, match=words) as caught:
        trace_attention(small_model(), data, **settings)
    assert "\n" not in str(caught.value)


def test_a_model_without_a_head_is_an_error():
    with pytest.raises(InputError, match="the model has no head"):
        trace_attention(small_model(attention_layers=()), TEXT)


def test_a_byte_without_a_symbol_is_an_error():
    with pytest.raises(InputError, match="byte 200, but the model has 100 symbols"):
        trace_attention(small_model(vocab_size=100), b"abc\xc8")
