"""Folded and packed steps give the numbers of the model that they were made from."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from sharnn import InputError, Memory, State, Stepper, load, load_corpus
from sharnn.checkpoint import to_int8
from sharnn.inference import packed
from sharnn.inference.packed import MAX_SLICED_VECTORS, FloatProduct, Int8Product
from sharnn.inference.ring import RingBuffer
from small import OPTIONS, small_model

SHAPES = [
    {},
    {"attention_layers": ()},
    {"attention_layers": (0, 1, 2)},
    {"memory_window": "sliding"},
    {"memory": 1},
    {"boom_dim": 16},
    {"dim": 10, "boom_dim": 25, "dropout": 0.3},
    *OPTIONS,
    *({"memory": 1, **options} for options in OPTIONS),
    *({"attention_layers": (0, 1, 2), "dim": 10, "boom_dim": 25, **options} for options in OPTIONS),
]


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_steps_equal_the_models_until_after_the_memory_is_full(shape, batch):
    model = small_model(**shape)
    symbols = torch.randint(256, (60, batch))
    stepper, state = Stepper(model, batch), None
    with torch.no_grad():
        for x in symbols:
            expected, state = model.step(x, state)
            assert_close(stepper.step(x), expected)


@pytest.mark.parametrize("options", [{}, *OPTIONS])
def test_steps_that_threads_share_equal_the_models(options, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    test_steps_equal_the_models_until_after_the_memory_is_full(options, batch=1)


def test_collapsing_and_training_mode_do_not_change_the_steps():
    model = small_model(dropout=0.5)
    stepper = Stepper(model)
    model.collapse()
    collapsed, training = Stepper(model), Stepper(model.train())
    for x in torch.randint(256, (30, 1)):
        expected = stepper.step(x)
        assert_close(collapsed.step(x), expected)
        assert_close(training.step(x), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_dtype_steps_in_float32(dtype):
    model = small_model().to(dtype)
    stepper = Stepper(model)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    expected = Stepper(model.float())
    for x in torch.randint(256, (30, 1)):
        assert_close(stepper.step(x), expected.step(x))


@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_it_reads_prompts_of_different_lengths_and_continues(options):
    model = small_model(memory_window="sliding", **options)
    prompts = [bytes(range(50, 53)), bytes(range(80, 120)), b"x"]
    stepper = Stepper(model, 3)
    logits = stepper.read(prompts)
    for i, prompt in enumerate(prompts):
        assert_close(logits[i], model(torch.tensor([list(prompt)]))[0][0, -1])
    more = torch.randint(256, (40, 3))
    steps = torch.stack([stepper.step(x) for x in more])  # (time, batch, vocab)
    for i, prompt in enumerate(prompts):
        whole = torch.tensor([[*prompt, *more[:, i].tolist()]])
        assert_close(steps[:, i], model(whole)[0][0, len(prompt) :])


@pytest.mark.parametrize("count", [7, 24, 60])
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_its_state_equals_the_models(count, options):
    model = small_model(attention_layers=(0, 2), memory_window="sliding", **options)
    x, after = torch.randint(256, (2, count)), torch.randint(256, (2, 9))
    stepper = Stepper(model, 2)
    for column in x.t():
        stepper.step(column)
    _, expected = model(x)
    state = stepper.state()
    for name, tensor in expected.to_tensors().items():
        assert_close(state.to_tensors()[name], tensor)
    assert_close(model(after, state)[0], model(after, expected)[0])
    other = Stepper(model, 2)
    other.load_state(expected)
    assert_close(other.step(after[:, 0]), model(after, expected)[0][:, 0])


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_memory_limit_applies_to_the_steps(limit, options):
    model = small_model(**options)
    stepper, state = Stepper(model, memory_limit=limit), None
    with torch.no_grad():
        for x in torch.randint(256, (12, 1)):
            expected, state = model.step(x, state, memory_limit=limit)
            assert_close(stepper.step(x), expected)


@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_int8_steps_are_close_to_the_models(options):
    model, symbols = small_model(**options), torch.randint(256, (60, 2))
    stepper, state, errors = Stepper(model, 2, "int8"), None, []
    with torch.no_grad():
        for x in symbols:
            expected, state = model.step(x, state)
            errors.append(stepper.step(x) - expected)
    # The logits are around 3. Without the option, the root of the mean square would exceed 0.12.
    assert torch.stack(errors).square().mean().sqrt() < 0.09


@pytest.mark.parametrize("batch", [1, MAX_SLICED_VECTORS, MAX_SLICED_VECTORS + 1])
@pytest.mark.parametrize("rows", [32, 33])
def test_slices_give_the_whole_product(batch, rows, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(packed, "is_intel", lambda: False)
    weight, bias, x = torch.randn(rows, 20), torch.randn(rows), torch.randn(batch, 20)
    assert_close(FloatProduct(weight, bias)(x), F.linear(x, weight, bias))
    assert_close(FloatProduct(weight, None)(x), F.linear(x, weight))


def test_no_product_is_sliced_on_an_intel_processor(monkeypatch):
    monkeypatch.setattr(packed, "is_intel", lambda: True)
    monkeypatch.setattr(torch, "baddbmm", None)  # calling it would raise an error
    weight, bias, x = torch.randn(32, 20), torch.randn(32), torch.randn(1, 20)
    assert torch.equal(FloatProduct(weight, bias)(x), F.linear(x, weight, bias))


def test_int8_products_are_accurate_and_keep_streams_apart():
    weight, bias, x = torch.randn(40, 64), torch.randn(40), torch.randn(3, 64)
    product = Int8Product(weight, bias)
    error = product(x) - F.linear(x, weight, bias)
    assert error.abs().max() < 0.4  # of values around 8
    assert error.square().mean().sqrt() < 0.1
    for i in range(3):
        assert torch.equal(product(x)[i], product(x[i : i + 1])[0])
    assert torch.equal(product(torch.zeros(1, 64))[0], bias)


def test_int8_products_stay_accurate_if_one_component_is_large():
    size = torch.ones(64).index_fill(0, torch.tensor([5]), 100)
    weight, x = torch.randn(40, 64) / size, torch.randn(3, 64) * size
    exact = F.linear(x, weight)
    (p, a), (q, s) = to_int8(x), to_int8(weight)
    one_scale = (p.float() @ q.float().t()) * a * s.t()
    error = (Int8Product(weight, None)(x) - exact).norm()
    assert error < (one_scale - exact).norm() / 4


@pytest.mark.slow
def test_int8_storage_costs_less_than_5_thousandths_of_a_bit():
    model = load("wiki-small")
    text = load_corpus("sample").test[:3000]
    bits = {}
    for storage in ("float32", "int8"):
        stepper, nats = Stepper(model, 1, storage), 0.0
        for x, y in itertools.pairwise(text):
            logits = stepper.step(torch.tensor([int(x)]))
            nats += F.cross_entropy(logits, torch.tensor([int(y)])).item()
        bits[storage] = nats / (len(text) - 1) / math.log(2)
    assert bits["int8"] - bits["float32"] < 0.005
    assert bits["int8"] != bits["float32"]


def test_a_ring_buffer_keeps_the_newest_rows_of_each_stream():
    ring = RingBuffer(2, 3, torch.zeros(1))
    ring.load([torch.tensor([[[1.0]]]), torch.tensor([[[7.0], [8.0]]])])
    with pytest.raises(InputError, match="memories differ in length"):
        ring.in_order()
    expected = {
        3.0: [[1.0, 2.0, 3.0], [8.0, 12.0, 13.0]],  # one stream is full, the other wraps around
        4.0: [[2.0, 3.0, 4.0], [12.0, 13.0, 14.0]],
    }
    for value in (2.0, 3.0, 4.0):
        ring.write(torch.tensor([[value], [value + 10]]))
        if value in expected:
            assert ring.in_order()[..., 0].tolist() == expected[value]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda model: Stepper(model, 0), "batch_size must be at least 1"),
        (lambda model: Stepper(model, memory_limit=0), "memory_limit must be at least 1 row"),
        (lambda model: Stepper(model, storage="int9"), "storage must be one of"),
        (lambda model: Stepper(model, 2).step(torch.tensor([1])), r"shape \(2,\), got \(1,\)"),
        (lambda model: Stepper(model).read([b""]), "none of them empty"),
        (lambda model: Stepper(model).read([b"a", b"b"]), "one prompt per stream, 1 in total"),
        (
            lambda model: Stepper(model, 2).load_state(
                State(((torch.zeros(1, 16),) * 2,) * 3, (None, Memory(torch.zeros(1, 2, 16)), None))
            ),
            "the states have 1 streams in total, the stepper 2",
        ),
    ],
)
def test_bad_input_raises_one_clear_line(act, message):
    with pytest.raises(InputError, match=message):
        act(small_model())
