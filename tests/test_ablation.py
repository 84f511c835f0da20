"""Replay and ablations against a loop that changes one query of one head at a time."""

import math

import pytest
import torch

from sharnn import InputError
from sharnn.analysis.ablation import ablate, distance_bands, keys_between, random_keys, top_keys
from sharnn.analysis.replay import Replay
from sharnn.analysis.trace import trace_attention
from small import ALL_OPTIONS, OPTIONS, small_model

TEXT = bytes(torch.randint(256, (200,), generator=torch.Generator().manual_seed(5)).tolist())
M = 24
TOLERANCE = {"rtol": 1e-6, "atol": 1e-5}  # bits are float32, the models below float64


def random_mask(targets, share=0.5):
    return torch.rand(targets, M) < share


def by_hand(model, trace, block, target, removed):
    """Returns the bits of one target, with the weights of its query changed in a hook."""
    text = torch.tensor(list(trace.text))
    query = trace.first - 1 + target  # the byte that the query has read
    before = text[: trace.first - 1].split(trace.segment_length)
    after = text[trace.first - 1 : -1].split(trace.segment_length)
    head = model.blocks[block].head
    state, start = None, 0
    for x in filter(len, [*before, *after]):
        i = query - start

        def change(module, inputs, result, i=i):
            _, rows, past, _ = inputs
            output, weights = result
            keys = rows if past is None else torch.cat([past, rows], dim=1)
            own = keys.shape[1] - rows.shape[1] + i
            left = weights[0, i].clone()
            for distance in range(M):
                if removed[distance] and distance <= own:
                    left[own - distance] = 0
            if left.sum() > 0:
                left = left / left.sum()
            output = output.clone()
            output[0, i] = (left[:, None] * keys[0]).sum(0) * module.static_value_gate()
            return output, weights

        hook = head.register_forward_hook(change) if 0 <= i < len(x) else None
        with torch.no_grad():
            if len(x) == 1:
                logits, state = model.step(x, state, memory_limit=trace.memory_limit)
                logits = logits[None]
            else:
                logits, state = model(x[None], state, memory_limit=trace.memory_limit)
        if hook is not None:
            hook.remove()
            return -logits[0, i].log_softmax(-1)[text[query + 1]].item() / math.log(2)
        start += len(x)
    raise AssertionError("the query was not reached")


HEADS = [((0,), 0), ((1,), 1), ((2,), 2), ((0, 1, 2), 0), ((0, 1, 2), 1), ((0, 1, 2), 2)]


@pytest.mark.parametrize("window", ["segment", "sliding"])
@pytest.mark.parametrize(("heads", "block"), HEADS)
@pytest.mark.parametrize(("start", "segment_length"), [(1, 6), (60, 1), (60, 8)])
@pytest.mark.parametrize("options", [{}, ALL_OPTIONS], ids=str)
def test_removing_keys_equals_one_step_with_changed_weights(
    window, heads, block, start, segment_length, options
):
    model = small_model(memory_window=window, attention_layers=heads, **options).double()
    trace = trace_attention(model, TEXT, start=start, targets=30, segment_length=segment_length)
    replay = Replay(model, trace)
    removed = random_mask(30, share=0.7)
    bits = replay.bits_without(block, removed)
    changed = 0
    for i in (0, 1, 7, 8, 15, 29):
        expected = by_hand(model, trace, block, i, removed[i])
        assert bits[i].item() == pytest.approx(expected, abs=1e-5)
        changed += abs(expected - trace.bits[trace.first + i].item()) > 1e-3
    assert changed >= 3  # otherwise the comparison would prove little


@pytest.mark.parametrize(
    "shape", [{}, {"collapsed": True}, {"layers": 1, "attention_layers": (0,)}, *OPTIONS]
)
def test_without_any_key_the_head_adds_nothing(shape):
    model = small_model(**shape).double()
    trace = trace_attention(model, TEXT, start=60, targets=10)
    block = model.config.attention_layers[0]
    everything = torch.ones(M, dtype=torch.bool)
    bits = Replay(model, trace).bits_without(block, everything)
    assert bits.isfinite().all()
    for i in (0, 9):
        expected = by_hand(model, trace, block, i, everything)
        assert bits[i].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("window", ["segment", "sliding"])
@pytest.mark.parametrize("heads", [(1,), (0, 1, 2)])
@pytest.mark.parametrize("start", [1, 10, 60])
@pytest.mark.parametrize("targets", [1, 140])  # 140 is more than one chunk
@pytest.mark.parametrize("options", [{}, ALL_OPTIONS], ids=str)
def test_nothing_removed_changes_nothing(window, heads, start, targets, options):
    model = small_model(memory_window=window, attention_layers=heads, **options)
    trace = trace_attention(model, TEXT[: start + targets], start=start, targets=targets)
    replay = Replay(model, trace)
    expected = trace.bits[trace.first :]
    torch.testing.assert_close(replay.bits, expected, rtol=1e-4, atol=1e-4)
    nothing = torch.zeros(targets, M, dtype=torch.bool)
    unseen = torch.arange(M) >= trace.num_visible[:, None]
    for block in heads:
        for mask in (nothing, unseen):
            torch.testing.assert_close(
                replay.bits_without(block, mask), replay.bits, rtol=1e-5, atol=1e-5
            )
        probabilities = replay.probabilities_without(block, nothing)
        torch.testing.assert_close(probabilities, trace.probabilities, rtol=1e-3, atol=1e-5)


def test_other_targets_are_not_affected():
    model = small_model(attention_layers=(0, 1, 2)).double()
    trace = trace_attention(model, TEXT, start=40, targets=140)
    replay = Replay(model, trace)
    for block in (0, 1, 2):
        mask = torch.zeros(140, M, dtype=torch.bool)
        mask[70] = top_keys(trace.weights[block], trace.num_visible, 8)[70]
        bits = replay.bits_without(block, mask)
        others = torch.arange(140) != 70
        torch.testing.assert_close(bits[others], replay.bits[others], **TOLERANCE)
        assert abs(bits[70] - replay.bits[70]) > 1e-4


@pytest.mark.parametrize("window", ["segment", "sliding"])
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_a_batch_equals_each_target_alone(window, options):
    model = small_model(memory_window=window, attention_layers=(0, 1, 2), **options).double()
    trace = trace_attention(model, TEXT, start=10, targets=140)
    replay = Replay(model, trace)
    mask = random_mask(140)
    for block in (0, 1, 2):
        together = replay.bits_without(block, mask)
        for i in (0, 3, 127, 128, 139):
            alone = replay.bits_without(block, mask[i], targets=[i])
            torch.testing.assert_close(alone, together[i : i + 1], **TOLERANCE)
        for index in (slice(20, 30), torch.tensor([130, 2, 2, 60]), [7], slice(None)):
            some = replay.bits_without(block, mask[index], targets=index)
            torch.testing.assert_close(some, together[index], **TOLERANCE)


def test_probabilities_and_bits_agree():
    model = small_model()
    trace = trace_attention(model, TEXT, start=60, targets=20)
    replay, mask = Replay(model, trace), random_mask(5)
    targets = slice(4, 9)
    probabilities = replay.probabilities_without(1, mask, targets)
    assert probabilities.shape == (5, 256)
    following = torch.tensor(list(trace.text[trace.first :][targets]))
    bits = -probabilities.gather(1, following[:, None])[:, 0].log2()
    torch.testing.assert_close(replay.bits_without(1, mask, targets), bits, rtol=1e-4, atol=1e-4)


def test_a_collapsed_model_gives_the_same_bits():
    model = small_model()
    trace = trace_attention(model, TEXT, start=60, targets=20)
    mask = random_mask(20)
    before = Replay(model, trace).bits_without(1, mask)
    model.collapse()
    after = Replay(model, trace).bits_without(1, mask)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored_and_dropout_is_off(training):
    model = small_model(dropout=0.5).train(training)
    replay = Replay(model, trace_attention(model, TEXT, start=60, targets=20))
    mask = random_mask(20)
    bits = replay.bits_without(1, mask)
    assert torch.equal(bits, replay.bits_without(1, mask))
    assert not bits.requires_grad
    assert model.training == training


NUM_VISIBLE = torch.tensor([1, 3, 4, M])


@pytest.mark.parametrize("k", [0, 1, 3, 10, M, 1000])
def test_masks_hold_k_visible_keys_or_all_of_them(k):
    seen = torch.arange(M) < NUM_VISIBLE[:, None]
    weights = torch.rand(4, M) * seen
    for mask in (top_keys(weights, NUM_VISIBLE, k), random_keys(NUM_VISIBLE, M, k)):
        assert mask.dtype == torch.bool
        assert mask.sum(-1).tolist() == NUM_VISIBLE.clamp(max=k).tolist()
        assert not (mask & ~seen).any()


def test_top_keys_are_the_largest_weights():
    weights = torch.rand(4, M)  # invisible keys have weights too
    mask = top_keys(weights, NUM_VISIBLE, 3)
    for i in range(4):
        own = weights[i, : NUM_VISIBLE[i]]
        best = own.sort(descending=True).indices[:3].tolist()
        assert mask[i].nonzero()[:, 0].tolist() == sorted(best)
    zeros = torch.zeros(1, M)  # a visible key's weight may be rounded to 0
    assert top_keys(zeros, torch.tensor([5]), 4).sum() == 4


def test_random_keys_are_uniform_and_depend_on_the_generator():
    num_visible = torch.full((6000,), 10)
    drawn = [random_keys(num_visible, M, 3, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    frequency = drawn[0][:, :10].float().mean(0)
    torch.testing.assert_close(frequency, torch.full((10,), 0.3), rtol=0, atol=0.03)


def test_keys_between_counts_the_byte_just_before_as_1():
    mask = keys_between(NUM_VISIBLE, M, 1, 1)
    assert mask.nonzero().tolist() == [[i, 0] for i in range(4)]
    mask = keys_between(NUM_VISIBLE, M, 3, 5)
    assert mask.sum(-1).tolist() == [0, 1, 2, 3]
    assert not keys_between(NUM_VISIBLE, M, 5, 3).any()


@pytest.mark.parametrize("limit", [1, 7, 8, 24, 64, 5000])
def test_bands_cover_every_distance_once(limit):
    covered = [d for low, high in distance_bands(limit) for d in range(low, high + 1)]
    assert covered == list(range(1, limit + 1))


def test_the_table_holds_the_extra_bits_of_single_removals():
    model = small_model().double()
    trace = trace_attention(model, TEXT, start=10, targets=40)
    replay = Replay(model, trace)
    table = ablate(replay, 1, counts=(4, 1, 1000), draws=3, seed=7)
    assert table.counts == (4, 1, 1000)
    assert table.bands == ((1, 1), (2, M))
    assert table.draws == 3
    for column, k in enumerate(table.counts):
        top = replay.bits_without(1, top_keys(trace.weights[1], trace.num_visible, k))
        torch.testing.assert_close(table.top[:, column], top - replay.bits)
    for column, ends in enumerate(table.bands):
        band = replay.bits_without(1, keys_between(trace.num_visible, M, *ends))
        torch.testing.assert_close(table.by_band[:, column], band - replay.bits)
    # All keys are removed, whatever the draw.
    torch.testing.assert_close(table.random[:, 2], table.top[:, 2])
    assert (table.random_std[:, 2] < 1e-5).all()
    assert (table.random_std[20:, :2] > 1e-5).all()
    again = ablate(replay, 1, counts=(4, 1, 1000), draws=3, seed=7)
    assert torch.equal(again.random, table.random)
    other = ablate(replay, 1, counts=(4, 1, 1000), draws=3, seed=8)
    assert not torch.equal(other.random, table.random)


def test_the_random_columns_are_the_mean_and_deviation_of_the_draws():
    """With one random key per draw, each key's own effect occurs about equally often."""
    model = small_model().double()
    trace = trace_attention(model, TEXT, start=60, targets=4)
    replay = Replay(model, trace)
    table = ablate(replay, 1, counts=(1,), draws=400)
    single = torch.stack(
        [
            replay.bits_without(1, keys_between(trace.num_visible, M, d, d)) - replay.bits
            for d in range(1, M + 1)
        ]
    )  # (memory, targets)
    for i in range(4):
        own = single[: trace.num_visible[i], i]
        assert abs(table.random[i, 0] - own.mean()) < 4 * own.std() / 400**0.5
        size = own.abs()
        assert abs(table.random_abs[i, 0] - size.mean()) < 4 * size.std() / 400**0.5
        assert table.random_std[i, 0].item() == pytest.approx(own.std().item(), rel=0.4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda r: r.bits_without(0, random_mask(20)),
            r"block 0 has no head; blocks with a head: \[1\]",
        ),
        (lambda r: r.bits_without(1, random_mask(19)), r"shape \(20, 24\), got .* \(19, 24\)"),
        (lambda r: r.bits_without(1, random_mask(20), [3]), r"shape \(1, 24\), got"),
        (lambda r: r.bits_without(1, random_mask(20).int()), "booleans"),
        (lambda r: r.bits_without(1, random_mask(1), slice(20, 30)), "targets selects no byte"),
        (lambda r: ablate(r, 0), "block 0 has no head"),
        (lambda r: ablate(r, 1, draws=1), "draws must be at least 2"),
        (lambda r: ablate(r, 1, counts=()), "counts"),
        (lambda r: ablate(r, 1, counts=(4, 0)), "counts"),
        (lambda r: top_keys(r.trace.weights[1], r.trace.num_visible, -1), "at least 0"),
        (lambda r: random_keys(r.trace.num_visible, M, -1), "at least 0"),
    ],
)
def test_invalid_input_is_an_error(call, words):
    model = small_model()
    replay = Replay(model, trace_attention(model, TEXT, start=60, targets=20))
    with pytest.raises(InputError, match=words) as caught:
        call(replay)
    assert "\n" not in str(caught.value)
