"""The attention head, compared with loops written from its equations."""

import math

import pytest
import torch

from sharnn.attention import SingleHeadAttention, causal_mask
from small import OPTIONS, small_model


def head_with_random_gates(dim: int = 8, shifted_keys: bool = False) -> SingleHeadAttention:
    head = SingleHeadAttention(dim, dropout=0.0, shifted_keys=shifted_keys).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return head


def loop(head, h, m, past, window):
    """Computes the head's equations, one query and one key at a time."""
    dim = h.shape[-1]
    kv = torch.cat([past, m], dim=1)
    c, f = head.value_shape(torch.sigmoid(head.value_scale)).chunk(2)
    value_gate = torch.sigmoid(f) * torch.tanh(c)
    output = torch.zeros_like(h)
    weights = torch.zeros(h.shape[0], h.shape[1], kv.shape[1])
    for b in range(h.shape[0]):
        for i in range(h.shape[1]):
            q = torch.sigmoid(head.query_scale) * head.query_norm(head.query(h[b, i]))
            newest = past.shape[1] + i
            visible = range(max(0, newest - window + 1), newest + 1)
            scores = []
            for j in visible:
                k = torch.sigmoid(head.key_scale) * kv[b, j]
                if head.shifted_keys:
                    oldest = j == visible[0]
                    k = torch.sigmoid(head.key_scale) * (0 if oldest else kv[b, j - 1])
                scores.append((q * k).sum() / math.sqrt(dim))
            probabilities = torch.softmax(torch.stack(scores), dim=0)
            for probability, j in zip(probabilities, visible, strict=True):
                weights[b, i, j] = probability
                output[b, i] += probability * value_gate * kv[b, j]
    return output, weights


@pytest.mark.parametrize("memory", [0, 1, 7])
@pytest.mark.parametrize("window", [1, 2, 3, 1000])
@pytest.mark.parametrize("shifted_keys", [False, True])
def test_the_head_equals_the_loop(memory, window, shifted_keys):
    head = head_with_random_gates(shifted_keys=shifted_keys)
    h, m, past = torch.randn(2, 5, 8), torch.randn(2, 5, 8), torch.randn(2, memory, 8)
    mask = causal_mask(5, memory, window, h.device)
    output, weights = head(h, m, past if memory else None, mask)
    expected_output, expected_weights = loop(head, h, m, past, window)
    torch.testing.assert_close(output, expected_output, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weights, expected_weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window", ["segment", "sliding"])
@pytest.mark.parametrize("limit", [1, 2, 24])
def test_in_a_model_each_segment_equals_the_loop(window, limit):
    """Including the first byte, segments longer than the memory and limits below the model's."""
    model = small_model(memory_window=window, shifted_keys=True)
    calls = []
    model.blocks[1].head.register_forward_hook(
        lambda head, inputs, result: calls.append((*inputs[:3], result))
    )
    state = None
    with torch.no_grad():
        for length in (1, 1, 5, 24, 1, 3, 30):
            _, state = model(torch.randint(256, (1, length)), state, memory_limit=limit)
            h, m, past, (output, weights) = calls.pop()
            past = m[:, :0] if past is None else past
            expected, expected_weights = loop(model.blocks[1].head, h, m, past, limit)
            torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(weights, expected_weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shifted_keys", [False, True])
def test_gradients_reach_every_parameter_and_the_segments_rows(shifted_keys):
    head = head_with_random_gates(shifted_keys=shifted_keys)
    h, m = (torch.randn(1, 4, 8, requires_grad=True) for _ in range(2))
    output, _ = head(h, m, torch.randn(1, 3, 8), causal_mask(4, 3, None, h.device))
    output.square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    assert m.grad.abs().sum() > 0


def test_dropout_applies_to_queries_values_and_attention_weights():
    head = head_with_random_gates().train()
    head.dropout.p = 0.5
    calls = []
    head.dropout.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0].shape))
    h, m, past = torch.randn(1, 4, 8), torch.randn(1, 4, 8), torch.randn(1, 3, 8)
    _, weights = head(h, m, past, causal_mask(4, 3, None, h.device))
    # q, the weights, then the values of the segment and of the memory
    assert calls == [(1, 4, 8), (1, 4, 7), (1, 4, 8), (1, 3, 8)]
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 4))


@pytest.mark.parametrize("heads", [(1,), (0, 1, 2)])
@pytest.mark.parametrize("window", ["segment", "sliding"])
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_returned_attention_weights_are_causal_and_sum_to_1(heads, window, options):
    model = small_model(attention_layers=heads, memory_window=window, **options)
    x = torch.randint(256, (2, 60))
    state, remembered = None, 0
    for segment in x.split(11, dim=1):
        with torch.no_grad():
            plain, _ = model(segment, state)
            logits, state, attention = model(segment, state, return_attention=True)
        torch.testing.assert_close(logits, plain, rtol=0, atol=0)
        assert sorted(attention) == list(heads)
        for weights in attention.values():
            time = segment.shape[1]
            assert weights.shape[:2] == (2, time)
            assert weights.shape[2] <= remembered + time
            assert (weights >= 0).all()
            torch.testing.assert_close(weights.sum(-1), torch.ones(2, time))
            future = torch.ones(time, time).triu(1).bool()
            assert (weights[..., -time:][:, future] == 0).all()
        remembered = state.memory_rows


def test_a_model_without_heads_returns_no_attention():
    model = small_model(attention_layers=())
    _, state, attention = model(torch.randint(256, (1, 5)), return_attention=True)
    assert attention == {}
    assert state.memory_rows == 0
