"""Steps that were folded and packed give the numbers of the model they were made from."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from sharnn import InputError, Memory, State, Stepper, load, load_corpus
from sharnn.inference.packed import FEW, FloatProduct, Int8Product
from sharnn.inference.ring import Ring
from small import small_model

SHAPES = [
    {},
    {"attention_layers": ()},
    {"attention_layers": (0, 1, 2)},
    {"memory_window": "sliding"},
    {"memory": 1},
    {"boom_dim": 16},
    {"dim": 10, "boom_dim": 25, "dropout": 0.3},
]


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_it_gives_the_models_own_steps_until_after_its_memory_is_full(shape, batch):
    model = small_model(**shape)
    symbols = torch.randint(256, (60, batch))
    stepper, state = Stepper(model, batch), None
    with torch.no_grad():
        for x in symbols:
            expected, state = model.step(x, state)
            close(stepper.step(x), expected)


def test_a_collapsed_model_and_a_model_in_training_step_the_same():
    model = small_model(dropout=0.5)
    stepper = Stepper(model)
    model.collapse()
    collapsed, training = Stepper(model), Stepper(model.train())
    for x in torch.randint(256, (30, 1)):
        expected = stepper.step(x)
        close(collapsed.step(x), expected)
        close(training.step(x), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_precision_steps_in_float32(dtype):
    model = small_model().to(dtype)
    stepper = Stepper(model)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    same = Stepper(model.float())
    for symbol in torch.randint(256, (30, 1)):
        close(stepper.step(symbol), same.step(symbol))


def test_it_reads_texts_of_different_lengths_and_goes_on():
    model = small_model(memory_window="sliding")
    texts = [bytes(range(50, 53)), bytes(range(80, 120)), b"x"]
    stepper = Stepper(model, 3)
    logits = stepper.read(texts)
    for text, row in zip(texts, logits, strict=True):
        close(row, model(torch.tensor([list(text)]))[0][0, -1])
    more = torch.randint(256, (40, 3))
    steps = torch.stack([stepper.step(x) for x in more])  # (time, batch, vocab)
    for i, text in enumerate(texts):
        whole = torch.tensor([[*text, *more[:, i].tolist()]])
        close(steps[:, i], model(whole)[0][0, len(text) :])


@pytest.mark.parametrize("count", [7, 24, 60])
def test_its_state_is_the_models(count):
    model = small_model(attention_layers=(0, 2), memory_window="sliding")
    x, after = torch.randint(256, (2, count)), torch.randint(256, (2, 9))
    stepper = Stepper(model, 2)
    for column in x.t():
        stepper.step(column)
    _, state = model(x)
    ours = stepper.state()
    for name, tensor in state.to_tensors().items():
        close(ours.to_tensors()[name], tensor)
    close(model(after, ours)[0], model(after, state)[0])
    other = Stepper(model, 2)
    other.load_state(state)
    close(other.step(after[:, 0]), model(after, state)[0][:, 0])


def test_memory_can_be_set_for_the_steps_alone():
    model = small_model()
    stepper, state = Stepper(model, memory=3), None
    with torch.no_grad():
        for x in torch.randint(256, (12, 1)):
            expected, state = model.step(x, state, memory=3)
            close(stepper.step(x), expected)


@pytest.mark.parametrize("batch", [1, FEW, FEW + 1])
@pytest.mark.parametrize("rows", [32, 33])
def test_pieces_give_the_whole_product(batch, rows, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    weight, bias, x = torch.randn(rows, 20), torch.randn(rows), torch.randn(batch, 20)
    close(FloatProduct(weight, bias)(x), F.linear(x, weight, bias))
    close(FloatProduct(weight, None)(x), F.linear(x, weight))


def test_int8_products_are_near_and_do_not_mix_streams():
    weight, bias, x = torch.randn(40, 64), torch.randn(40), torch.randn(3, 64)
    product = Int8Product(weight, bias)
    error = product(x) - F.linear(x, weight, bias)
    assert error.abs().max() < 0.4  # of values around 8
    assert error.square().mean().sqrt() < 0.1
    for i in range(3):
        assert torch.equal(product(x)[i], product(x[i : i + 1])[0])
    assert torch.equal(product(torch.zeros(1, 64))[0], bias)


@pytest.mark.slow
def test_int8_weights_cost_less_than_5_thousandths_of_a_bit():
    model = load("wiki-tiny")
    text = load_corpus("sample").test[:3000]
    bits = {}
    for weights in ("float32", "int8"):
        stepper, nats = Stepper(model, 1, weights), 0.0
        for x, y in itertools.pairwise(text):
            logits = stepper.step(torch.tensor([int(x)]))
            nats += F.cross_entropy(logits, torch.tensor([int(y)])).item()
        bits[weights] = nats / (len(text) - 1) / math.log(2)
    assert bits["int8"] - bits["float32"] < 0.005
    assert bits["int8"] != bits["float32"]


def test_a_ring_keeps_the_newest_rows_of_each_stream():
    ring = Ring(2, 3, torch.zeros(1))
    ring.load([torch.tensor([[[1.0]]]), torch.tensor([[[7.0], [8.0]]])])
    with pytest.raises(InputError, match="different numbers of rows"):
        ring.in_order()
    for value in (2.0, 3.0, 4.0):
        ring.write(torch.tensor([[value], [value + 10]]))
    assert ring.in_order()[..., 0].tolist() == [[2.0, 3.0, 4.0], [12.0, 13.0, 14.0]]


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda model: Stepper(model, 0), "batch_size must be at least 1"),
        (lambda model: Stepper(model, memory=0), "memory must be at least 1 row"),
        (lambda model: Stepper(model, weights="int9"), "weights must be one of"),
        (lambda model: Stepper(model, 2).step(torch.tensor([1])), "each of 2 streams"),
        (lambda model: Stepper(model).read([b""]), "none of them empty"),
        (lambda model: Stepper(model).read([b"a", b"b"]), "1 texts are needed"),
        (
            lambda model: Stepper(model, 2).load_state(
                State(((torch.zeros(1, 16),) * 2,) * 3, (None, Memory(torch.zeros(1, 2, 16)), None))
            ),
            "not those of 2 streams",
        ),
    ],
)
def test_bad_input_is_one_clear_line(act, words):
    with pytest.raises(InputError, match=words):
        act(small_model())
