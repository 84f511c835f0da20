"""Removed keys against a loop that alters one query of one head; one byte's mask is its own."""

import math

import pytest
import torch

from sharnn import InputError
from sharnn.analysis.ablation import distance_bands, keys_between, losses, random_keys, top_keys
from sharnn.analysis.replay import Replay
from sharnn.analysis.trace import read
from small import small_model

TEXT = bytes(torch.randint(256, (200,), generator=torch.Generator().manual_seed(5)).tolist())
M = 24
TOLERANCE = {"rtol": 1e-6, "atol": 1e-5}  # bits are float32, the models below float64


def random_mask(rows, share=0.5):
    return torch.rand(rows, M) < share


def by_hand(model, reading, block, row, removed):
    """Bits of one watched byte when the weights that one query got are changed after the fact."""
    text = torch.tensor(list(reading.text))
    query = reading.first - 1 + row  # the byte that the query has read
    before = text[: reading.first - 1].split(reading.segment_length)
    watched = text[reading.first - 1 : -1].split(reading.segment_length)
    head = model.blocks[block].head
    state, start = None, 0
    for x in filter(len, [*before, *watched]):
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
                logits, state = model.step(x, state, memory=reading.memory)
                logits = logits[None]
            else:
                logits, state = model(x[None], state, memory=reading.memory)
        if hook is not None:
            hook.remove()
            return -logits[0, i].log_softmax(-1)[text[query + 1]].item() / math.log(2)
        start += len(x)
    raise AssertionError("the query was not reached")


HEADS = [((0,), 0), ((1,), 1), ((2,), 2), ((0, 1, 2), 0), ((0, 1, 2), 1), ((0, 1, 2), 2)]


@pytest.mark.parametrize("window", ["segment", "sliding"])
@pytest.mark.parametrize(("heads", "block"), HEADS)
@pytest.mark.parametrize(("start", "segment_length"), [(1, 6), (60, 1), (60, 8)])
def test_a_removal_equals_one_step_with_the_weights_changed(
    window, heads, block, start, segment_length
):
    model = small_model(memory_window=window, attention_layers=heads).double()
    reading = read(model, TEXT, start=start, watched=30, segment_length=segment_length)
    replay = Replay(model, reading)
    removed = random_mask(30, share=0.7)
    bits = replay.bits_without(block, removed)
    changed = 0
    for row in (0, 1, 7, 8, 15, 29):
        expected = by_hand(model, reading, block, row, removed[row])
        assert bits[row].item() == pytest.approx(expected, abs=1e-5)
        changed += abs(expected - reading.bits[reading.first + row].item()) > 1e-3
    assert changed >= 3  # the removals matter, or the comparison would say little


@pytest.mark.parametrize(
    "shape", [{}, {"collapsed": True}, {"layers": 1, "attention_layers": (0,)}]
)
def test_without_any_key_the_head_adds_nothing(shape):
    model = small_model(**shape).double()
    reading = read(model, TEXT, start=60, watched=10)
    block = model.config.attention_layers[0]
    everything = torch.ones(M, dtype=torch.bool)
    bits = Replay(model, reading).bits_without(block, everything)
    assert bits.isfinite().all()
    for row in (0, 9):
        expected = by_hand(model, reading, block, row, everything)
        assert bits[row].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("window", ["segment", "sliding"])
@pytest.mark.parametrize("heads", [(1,), (0, 1, 2)])
@pytest.mark.parametrize("start", [1, 10, 60])
@pytest.mark.parametrize("watched", [1, 140])  # more than are computed at a time
def test_nothing_removed_changes_nothing(window, heads, start, watched):
    model = small_model(memory_window=window, attention_layers=heads)
    reading = read(model, TEXT[: start + watched], start=start, watched=watched)
    replay = Replay(model, reading)
    expected = reading.bits[reading.first :]
    torch.testing.assert_close(replay.bits, expected, rtol=1e-4, atol=1e-4)
    nothing = torch.zeros(watched, M, dtype=torch.bool)
    unseen = torch.arange(M) >= reading.visible[:, None]
    for block in heads:
        for mask in (nothing, unseen):
            torch.testing.assert_close(
                replay.bits_without(block, mask), replay.bits, rtol=1e-5, atol=1e-5
            )
        probabilities = replay.probabilities_without(block, nothing)
        torch.testing.assert_close(probabilities, reading.probabilities, rtol=1e-3, atol=1e-5)


def test_the_lower_blocks_and_other_bytes_do_not_notice():
    model = small_model(attention_layers=(0, 1, 2)).double()
    reading = read(model, TEXT, start=40, watched=140)
    replay = Replay(model, reading)
    for block in (0, 1, 2):
        mask = torch.zeros(140, M, dtype=torch.bool)
        mask[70] = top_keys(reading.weights[block], reading.visible, 8)[70]
        bits = replay.bits_without(block, mask)
        others = torch.arange(140) != 70
        torch.testing.assert_close(bits[others], replay.bits[others], **TOLERANCE)
        assert abs(bits[70] - replay.bits[70]) > 1e-4


@pytest.mark.parametrize("window", ["segment", "sliding"])
def test_a_batch_is_each_byte_alone(window):
    model = small_model(memory_window=window, attention_layers=(0, 1, 2)).double()
    reading = read(model, TEXT, start=10, watched=140)
    replay = Replay(model, reading)
    mask = random_mask(140)
    for block in (0, 1, 2):
        together = replay.bits_without(block, mask)
        for row in (0, 3, 127, 128, 139):
            alone = replay.bits_without(block, mask[row], rows=[row])
            torch.testing.assert_close(alone, together[row : row + 1], **TOLERANCE)
        for rows in (slice(20, 30), torch.tensor([130, 2, 2, 60]), [7], slice(None)):
            some = replay.bits_without(block, mask[rows], rows=rows)
            torch.testing.assert_close(some, together[rows], **TOLERANCE)


def test_probabilities_and_bits_agree():
    model = small_model()
    reading = read(model, TEXT, start=60, watched=20)
    replay, mask = Replay(model, reading), random_mask(5)
    rows = slice(4, 9)
    probabilities = replay.probabilities_without(1, mask, rows)
    assert probabilities.shape == (5, 256)
    following = torch.tensor(list(reading.text[reading.first :][rows]))
    bits = -probabilities.gather(1, following[:, None])[:, 0].log2()
    torch.testing.assert_close(replay.bits_without(1, mask, rows), bits, rtol=1e-4, atol=1e-4)


def test_a_collapsed_model_loses_the_same():
    model = small_model()
    reading = read(model, TEXT, start=60, watched=20)
    mask = random_mask(20)
    before = Replay(model, reading).bits_without(1, mask)
    model.collapse()
    after = Replay(model, reading).bits_without(1, mask)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_left_and_dropout_is_off(training):
    model = small_model(dropout=0.5).train(training)
    replay = Replay(model, read(model, TEXT, start=60, watched=20))
    mask = random_mask(20)
    bits = replay.bits_without(1, mask)
    assert torch.equal(bits, replay.bits_without(1, mask))
    assert not bits.requires_grad
    assert model.training == training


VISIBLE = torch.tensor([1, 3, 4, M])


@pytest.mark.parametrize("k", [0, 1, 3, 10, M, 1000])
def test_masks_take_as_many_visible_keys_as_there_are(k):
    seen = torch.arange(M) < VISIBLE[:, None]
    weights = torch.rand(4, M) * seen
    for mask in (top_keys(weights, VISIBLE, k), random_keys(VISIBLE, M, k)):
        assert mask.dtype == torch.bool
        assert mask.sum(-1).tolist() == VISIBLE.clamp(max=k).tolist()
        assert not (mask & ~seen).any()


def test_top_keys_are_the_largest_weights():
    weights = torch.rand(4, M)  # also where a query can't look
    mask = top_keys(weights, VISIBLE, 3)
    for row in range(4):
        own = weights[row, : VISIBLE[row]]
        best = own.sort(descending=True).indices[:3].tolist()
        assert mask[row].nonzero()[:, 0].tolist() == sorted(best)
    zeros = torch.zeros(1, M)  # a weight may be rounded to 0 and its key still be seen
    assert top_keys(zeros, torch.tensor([5]), 4).sum() == 4


def test_random_keys_are_even_and_follow_the_generator():
    visible = torch.full((6000,), 10)
    draw = [random_keys(visible, M, 3, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
    often = draw[0][:, :10].float().mean(0)
    torch.testing.assert_close(often, torch.full((10,), 0.3), rtol=0, atol=0.03)


def test_keys_between_counts_the_byte_just_before_as_1():
    mask = keys_between(VISIBLE, M, 1, 1)
    assert mask.nonzero().tolist() == [[row, 0] for row in range(4)]
    mask = keys_between(VISIBLE, M, 3, 5)
    assert mask.sum(-1).tolist() == [0, 1, 2, 3]
    assert not keys_between(VISIBLE, M, 5, 3).any()


@pytest.mark.parametrize("memory", [1, 7, 8, 24, 64, 5000])
def test_bands_cover_every_distance_once(memory):
    covered = [d for low, high in distance_bands(memory) for d in range(low, high + 1)]
    assert covered == list(range(1, memory + 1))


def test_the_table_holds_what_single_removals_lose():
    model = small_model().double()
    reading = read(model, TEXT, start=10, watched=40)
    replay = Replay(model, reading)
    table = losses(replay, 1, counts=(4, 1, 1000), draws=3, seed=7)
    assert table.counts == (4, 1, 1000)
    assert table.bands == ((1, 1), (2, M))
    assert table.draws == 3
    for column, k in enumerate(table.counts):
        top = replay.bits_without(1, top_keys(reading.weights[1], reading.visible, k))
        torch.testing.assert_close(table.top[:, column], top - replay.bits)
    for column, ends in enumerate(table.bands):
        band = replay.bits_without(1, keys_between(reading.visible, M, *ends))
        torch.testing.assert_close(table.band[:, column], band - replay.bits)
    # All keys are removed: the same whatever was drawn.
    torch.testing.assert_close(table.random[:, 2], table.top[:, 2])
    assert (table.spread[:, 2] < 1e-5).all()
    assert (table.spread[20:, :2] > 1e-5).all()
    again = losses(replay, 1, counts=(4, 1, 1000), draws=3, seed=7)
    assert torch.equal(again.random, table.random)
    other = losses(replay, 1, counts=(4, 1, 1000), draws=3, seed=8)
    assert not torch.equal(other.random, table.random)


def test_the_random_column_is_the_mean_and_deviation_of_its_draws():
    """One key is drawn: over many draws, each key's own loss comes up about equally often."""
    model = small_model().double()
    reading = read(model, TEXT, start=60, watched=4)
    replay = Replay(model, reading)
    table = losses(replay, 1, counts=(1,), draws=400)
    single = torch.stack(
        [
            replay.bits_without(1, keys_between(reading.visible, M, d, d)) - replay.bits
            for d in range(1, M + 1)
        ]
    )  # (memory, watched)
    for row in range(4):
        own = single[: reading.visible[row], row]
        assert abs(table.random[row, 0] - own.mean()) < 4 * own.std() / 400**0.5
        size = own.abs()
        assert abs(table.random_size[row, 0] - size.mean()) < 4 * size.std() / 400**0.5
        assert table.spread[row, 0].item() == pytest.approx(own.std().item(), rel=0.4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda r: r.bits_without(0, random_mask(20)), r"block 0 has no head, blocks \(1,\) have"),
        (lambda r: r.bits_without(1, random_mask(19)), r"shape \(20, 24\), got .* \(19, 24\)"),
        (lambda r: r.bits_without(1, random_mask(20), [3]), r"shape \(1, 24\), got"),
        (lambda r: r.bits_without(1, random_mask(20).int()), "booleans"),
        (lambda r: r.bits_without(1, random_mask(1), slice(20, 30)), "no watched byte"),
        (lambda r: losses(r, 0), "block 0 has no head"),
        (lambda r: losses(r, 1, draws=1), "draws must be at least 2"),
        (lambda r: losses(r, 1, counts=()), "counts"),
        (lambda r: losses(r, 1, counts=(4, 0)), "counts"),
        (lambda r: top_keys(r.reading.weights[1], r.reading.visible, -1), "at least 0"),
        (lambda r: random_keys(r.reading.visible, M, -1), "at least 0"),
    ],
)
def test_bad_input_is_told_in_words(call, words):
    model = small_model()
    replay = Replay(model, read(model, TEXT, start=60, watched=20))
    with pytest.raises(InputError, match=words) as caught:
        call(replay)
    assert "\n" not in str(caught.value)
