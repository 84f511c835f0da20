"""The model: streams can be cut anywhere, outputs are causal, and invalid input is an error."""

import pytest
import torch
from torch import nn

from sharnn import SHARNN, InputError, ModelConfig
from sharnn.layers import LAYER_NORM_EPS
from small import OPTIONS, small_config, small_model

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}  # for float64


def chunked(model, x, cuts):
    """Returns the logits and the final state of streams that are read in segments."""
    state, results = None, []
    for segment in torch.tensor_split(x, cuts, dim=1):
        logits, state = model(segment, state)
        results.append(logits)
    return torch.cat(results, dim=1), state


def stepped(model, x):
    """Returns the logits and the final state of streams that are read symbol by symbol."""
    state, results = None, []
    for i in range(x.shape[1]):
        logits, state = model.step(x[:, i], state)
        results.append(logits)
    return torch.stack(results, dim=1), state


def assert_same_state(one, other):
    ours, theirs = one.to_tensors(), other.to_tensors()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], **TOLERANCE)


SHAPES = [
    {},
    {"attention_layers": ()},
    {"attention_layers": (0, 1, 2)},
    {"attention_layers": (0,), "layers": 1},
    {"dim": 7, "boom_dim": 17},
    {"memory": 1},
    {"collapsed": True},
    *OPTIONS,
    *({"memory": 1, **options} for options in OPTIONS),
    *({"attention_layers": (0, 1, 2), "memory": 2, **options} for options in OPTIONS),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gradients", [True, False])
def test_under_the_sliding_rule_cuts_do_not_matter(shape, gradients):
    """The streams of 70 symbols overflow the memory of at most 24 rows."""
    model = small_model(memory_window="sliding", **shape).double()
    x = torch.randint(256, (2, 70))
    with torch.set_grad_enabled(gradients):
        whole, end = model(x)
        results = [stepped(model, x)]
        for cuts in ([1], [69], [24], [23, 25], [10, 11, 50], list(range(5, 70, 5))):
            results.append(chunked(model, x, cuts))
    for logits, state in results:
        torch.testing.assert_close(logits, whole, **TOLERANCE)
        assert_same_state(state, end)


@pytest.mark.parametrize("shape", SHAPES)
def test_under_the_papers_rule_cuts_do_not_matter_until_the_memory_is_full(shape):
    model = small_model(**{**shape, "memory": 70}).double()
    x = torch.randint(256, (2, 70))
    whole, end = model(x)
    for logits, state in (stepped(model, x), chunked(model, x, [3, 20, 41])):
        torch.testing.assert_close(logits, whole, **TOLERANCE)
        assert_same_state(state, end)


def test_under_the_papers_rule_memory_and_segment_share_m_rows():
    """Before a segment of length L only the newest M - L rows remain visible to its queries."""
    model = small_model(memory=24)
    state, position = None, 0
    for length in (10, 10, 10, 24, 30, 1, 23, 2):
        kept = min(position, max(0, 24 - length))
        x = torch.randint(256, (1, length))
        _, state, attention = model(x, state, return_attention=True)
        weights = attention[1]
        assert weights.shape == (1, length, kept + length)
        visible = torch.ones(length, kept + length).tril(kept).bool()
        if length > 24:  # even then no query sees more than M rows
            visible &= torch.ones(length, kept + length).triu(kept - 23).bool()
        assert ((weights[0] > 0) == visible).all()
        position = min(position + length, 24)
        assert state.memory_rows == position


@pytest.mark.parametrize("window", ["segment", "sliding"])
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_no_query_sees_more_rows_than_the_memory_limit(window, options):
    model = small_model(memory=24, memory_window=window, **options)
    _, _, attention = model(torch.randint(256, (1, 30)), memory_limit=3, return_attention=True)
    assert (attention[1][0] > 0).sum(dim=-1).tolist() == [1, 2] + [3] * 28


@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_under_the_sliding_rule_each_query_sees_exactly_m_rows(options):
    model = small_model(memory=24, memory_window="sliding", **options)
    x = torch.randint(256, (1, 90))
    _, state = model(x[:, :40])
    _, _, attention = model(x[:, 40:], state, return_attention=True)
    num_visible = (attention[1][0] > 0).sum(dim=-1)
    assert (num_visible == 24).all()


@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_both_rules_agree_for_single_steps(options):
    segment, sliding = (
        small_model(memory_window=window, **options).double() for window in ("segment", "sliding")
    )
    x = torch.randint(256, (2, 60))
    with torch.no_grad():
        torch.testing.assert_close(stepped(segment, x)[0], stepped(sliding, x)[0])


@pytest.mark.parametrize("window", ["segment", "sliding"])
@pytest.mark.parametrize("heads", [(), (1,), (0, 1, 2)])
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_no_later_byte_changes_an_earlier_logit(window, heads, options):
    model = small_model(attention_layers=heads, memory_window=window, **options)
    x = torch.randint(256, (1, 50))
    _, state = model(torch.randint(256, (1, 30)))
    logits, _ = model(x, state)
    for changed in (1, 17, 49):
        other = x.clone()
        other[0, changed] = (other[0, changed] + 1) % 256
        others, _ = model(other, state)
        assert torch.equal(others[:, :changed], logits[:, :changed])
        assert not torch.equal(others[:, changed], logits[:, changed])


def test_streams_of_a_batch_are_independent():
    model = small_model().double()
    x = torch.randint(256, (3, 40))
    batched, _ = model(x)
    for i in range(3):
        alone, _ = model(x[i : i + 1])
        torch.testing.assert_close(batched[i : i + 1], alone, **TOLERANCE)


def test_the_memory_carries_information_without_the_lstm():
    """With the LSTM state set to zero, only the memory distinguishes two pasts."""
    model = small_model()
    x = torch.randint(256, (1, 5))
    outputs = []
    for past in (b"one past here", b"another past!"):
        _, state = model(torch.tensor([list(past)]))
        zeros = tuple((torch.zeros_like(h), torch.zeros_like(c)) for h, c in state.lstm)
        outputs.append(model(x, type(state)(zeros, state.memory))[0])
    assert not torch.allclose(outputs[0], outputs[1])


def test_memory_limit_overrides_the_configured_memory():
    model = small_model(memory=24)
    x = torch.randint(256, (1, 60))
    state = None
    for segment in x.split(5, dim=1):
        _, state = model(segment, state, memory_limit=7)
    assert state.memory_rows == 7


@pytest.mark.parametrize("heads", [(1,), (0, 1, 2)])
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_collapsing_does_not_change_the_outputs(heads, options):
    model = small_model(attention_layers=heads, **options)
    x = torch.randint(256, (2, 30))
    before, _ = model(x)
    names = {name for name, _ in model.named_parameters()}
    model.collapse()
    model.collapse()  # a second time changes nothing
    after, _ = model(x)
    torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-6)
    assert not any("value_shape" in name for name, _ in model.named_parameters())
    assert any("value_shape" in name for name in names)
    assert model.config.collapsed


def test_layer_norms_start_at_gain_1_and_matrices_at_the_authors_scale():
    model = SHARNN(small_config(dim=64, boom_dim=256))
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 3 * 3 + 3  # 3 in each block and 3 more beside the head
    for norm in norms:
        assert norm.eps == LAYER_NORM_EPS
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()
    for weight in (model.embedding.weight, model.blocks[0].boom.expand.weight):
        assert weight.std().item() == pytest.approx(0.1 / 64**0.5, rel=0.05)
    assert (model.blocks[0].boom.expand.bias == 0).all()
    assert (model.output_bias == 0).all()


def test_with_query_gain_only_the_queries_start_differently():
    models, after = [], []
    for gain in (None, 4.0):
        torch.manual_seed(3)
        models.append(SHARNN(small_config(attention_layers=(0, 2), query_gain=gain)))
        after.append(torch.get_rng_state())
    plain, other = (model.state_dict() for model in models)
    changed = {name for name in plain if not torch.equal(plain[name], other[name])}
    assert changed == {
        f"blocks.{i}.head.{name}.weight" for i in (0, 2) for name in ("query", "query_norm")
    }
    for i in (0, 2):
        head = models[1].blocks[i].head
        assert torch.equal(head.query.weight, 4 * torch.eye(16))
        assert torch.equal(head.query.bias, torch.zeros(16))
        assert torch.equal(head.query_norm.weight, torch.full((16,), 4.0))
    assert torch.equal(*after)


def test_lstm_skip_adds_the_lstms_normalised_input():
    for block in small_model(lstm_skip=0.5).blocks:
        h = torch.randn(2, 5, 16)
        start = block.start_norm(h)
        expected = block.lstm(start, None)[0] + block.lstm_skip * start
        torch.testing.assert_close(block.before_head(h, None)[0], expected)


def test_with_lstm_skip_each_block_has_one_more_vector_that_starts_at_the_number():
    torch.manual_seed(3)
    plain = SHARNN(small_config()).state_dict()
    torch.manual_seed(3)
    other = SHARNN(small_config(lstm_skip=-0.25)).state_dict()
    for i in range(3):
        assert torch.equal(other.pop(f"blocks.{i}.lstm_skip"), torch.full((16,), -0.25))
    assert plain.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in plain.items())


@pytest.mark.parametrize("window", ["segment", "sliding"])
def test_with_shifted_keys_and_query_gain_a_head_starts_as_an_induction_head(window):
    """In the second copy of a text, the largest weight is on what followed in the first."""
    options = {"dim": 64, "boom_dim": 64, "memory": 100, "memory_window": window}
    x = torch.randperm(256)[:40].repeat(2)[None]
    found = {}
    for shifted_keys, gain in ((False, None), (True, None), (False, 8.0), (True, 8.0)):
        model = SHARNN(small_config(shifted_keys=shifted_keys, query_gain=gain, **options))
        _, _, attention = model.forward_with_attention(x)
        largest = attention[1][0].argmax(dim=-1)[50:]
        found[shifted_keys, gain] = (largest == torch.arange(50, 80) - 39).double().mean().item()
    assert found.pop((True, 8.0)) == 1
    assert max(found.values()) < 0.1


def test_the_output_is_tied_to_the_embedding():
    model = small_model()
    with torch.no_grad():
        model.embedding.weight[65] = 0
    logits, _ = model(torch.randint(256, (1, 3)))
    torch.testing.assert_close(logits[0, :, 65], model.output_bias[65].expand(3))


def test_a_state_can_be_continued_twice():
    """The first continuation leaves the state unchanged for the second."""
    model = small_model()
    with torch.no_grad():
        _, past = model(torch.randint(256, (1, 10)))
        x, other = torch.randint(256, (2, 1, 8))
        first = model(x, past)[0]
        model(other, past)
        for symbol in other[0]:
            past_again = model.step(symbol[None], past)[1]
        assert past_again.memory_rows == 11
        torch.testing.assert_close(model(x, past)[0], first, rtol=0, atol=0)


def test_states_do_not_require_gradients():
    model = small_model()
    _, state = model(torch.randint(256, (1, 10)))
    assert not any(tensor.requires_grad for tensor in state.to_tensors().values())


def test_integer_dtypes_are_accepted():
    model = small_model()
    x = torch.randint(256, (1, 10))
    expected, _ = model(x)
    for dtype in (torch.uint8, torch.int32, torch.int64):
        torch.testing.assert_close(model(x.to(dtype))[0], expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(torch.randint(256, (5,))), "shape"),
        (lambda m: m(torch.randint(256, (1, 0))), "shape"),
        (lambda m: m(torch.zeros(1, 5)), "integers"),
        (lambda m: m(torch.tensor([[3, 256]])), "symbols from 0 to 255, got 3 to 256"),
        (lambda m: m(torch.tensor([[-1]])), "symbols from 0 to 255"),
        (lambda m: m(torch.zeros(1, 5, dtype=torch.long), memory_limit=0), "at least 1"),
        (lambda m: m.step(torch.zeros(1, 1, dtype=torch.long)), "one symbol"),
        (
            lambda m: m(torch.zeros(2, 5, dtype=torch.long), m(torch.zeros(1, 5).long())[1]),
            "streams",
        ),
        (
            lambda m: m(
                torch.zeros(1, 5, dtype=torch.long),
                small_model(layers=4)(torch.zeros(1, 5).long())[1],
            ),
            "layers",
        ),
    ],
)
def test_invalid_input_is_an_error(call, message):
    with pytest.raises(InputError, match=message):
        call(small_model())


def test_presets_have_the_documented_sizes():
    counts = {}
    for name in ("tiny", "small", "medium"):
        with torch.device("meta"):
            counts[name] = SHARNN(ModelConfig.preset(name)).parameter_count()
    assert counts["tiny"] < 1_000_000
    assert 3_000_000 < counts["small"] < 4_000_000
    assert 12_000_000 < counts["medium"] < 14_500_000


@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_under_autocast_rows_are_remembered_in_its_dtype(monkeypatch, options):
    """The outputs are the same as if each product cast float32 rows."""
    model, segments = small_model(**options), torch.randint(256, (3, 2, 11))
    # On a GPU autocast computes LayerNorms in float32; on the CPU it does not.
    model.blocks[1].memory_norm.register_forward_hook(lambda module, inputs, rows: rows.float())

    def logits():
        state, results = None, []
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for x in segments:
                y, state = model(x, state)
                results.append(y)
        return torch.stack(results), state

    ours, state = logits()
    assert state.memory[1].rows.dtype == torch.bfloat16
    monkeypatch.setattr("sharnn.model.to_autocast_dtype", lambda rows: rows)
    theirs, kept = logits()
    assert kept.memory[1].rows.dtype == torch.float32
    assert torch.equal(ours, theirs)
    close = {"rtol": 0.1, "atol": 0.1}
    torch.testing.assert_close(model(segments[0], state)[0], model(segments[0], kept)[0], **close)
