"""Exact steps are near those of the model, and have the same bits on every machine."""

import hashlib
import math

import numpy as np
import pytest
import torch

from sharnn import InputError, Stepper, load
from sharnn.attention import SingleHeadAttention
from sharnn.corpora.sample import sample_bytes
from sharnn.exact import learning, products, ring, stepper
from sharnn.exact.arithmetic import EXP, SIGMOID, exp, normalise, quantise
from sharnn.exact.learning import LearningStepper
from sharnn.exact.products import IntegerMatrix, multiply
from sharnn.exact.ring import MAX_ROWS, IntegerRing
from sharnn.exact.stepper import ExactStepper, exact_value_gate
from sharnn.inference.ring import RingBuffer
from small import ALL_OPTIONS, OPTIONS, OTHER_INSTRUCTIONS, run_with, small_model

SHAPES = [
    {},
    {"attention_layers": ()},
    {"attention_layers": (0, 1, 2)},
    {"memory": 1},
    {"boom_dim": 16},
    {"dim": 10, "boom_dim": 25, "dropout": 0.3},
    {"collapsed": True},
    *OPTIONS,
    {"memory": 1, **ALL_OPTIONS},
]
# SHA-256 of the logits that `logits_of_wiki_small` returns, on every machine.
GOLDEN = "3c7082dc0d69c6757933bde0acc14c426a5ffb01c0f6863a9a246f68493f5caa"


def logits_of_wiki_small(num_steps=300):
    """Returns the logits (steps, 2, 256) of two streams, whose memory of 100 rows overflows."""
    model = ExactStepper(load("wiki-small"), num_streams=2, memory_limit=100)
    text = np.frombuffer(sample_bytes(2 * num_steps), dtype=np.uint8)
    columns = text.reshape(2, -1).T.astype(np.int64)
    return np.stack([model.step(x) for x in columns])


def digest(logits):
    return hashlib.sha256(logits.astype("<f8").tobytes()).hexdigest()


@pytest.fixture
def fine(monkeypatch):
    """Rounds to 20 bits instead of 8 and computes functions instead of reading tables."""

    def to_integers(weight):
        scales = weight.double().abs().amax(dim=1, keepdim=True) / 2**20
        return (weight / scales).round(), scales

    monkeypatch.setattr(products, "to_int8", to_integers)
    monkeypatch.setattr(ring, "WEIGHTS_TOTAL", 2.0**40)
    monkeypatch.setattr(ring, "EXP", np.exp)
    monkeypatch.setattr(stepper, "SIGMOID", lambda x: 1 / (1 + np.exp(-x)))
    for module in (products, ring):
        monkeypatch.setattr(module, "LARGEST", 2.0**20)
        monkeypatch.setattr(module, "storage", lambda: np.float64)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_with_finer_rounding_steps_are_those_of_the_model(fine, shape):
    model = small_model(**shape)
    exact, floating = ExactStepper(model, 3), Stepper(model, 3)
    for x in torch.randint(256, (60, 3), generator=torch.Generator().manual_seed(0)):
        expected = floating.step(x).numpy()
        np.testing.assert_allclose(exact.step(x.numpy()), expected, atol=2e-3)


def test_the_bits_are_those_of_every_machine():
    assert digest(logits_of_wiki_small()) == GOLDEN


def test_products_in_float32_give_the_same_bits(float32_products):
    assert digest(logits_of_wiki_small()) == GOLDEN


@pytest.mark.parametrize("settings", OTHER_INSTRUCTIONS, ids=str)
@pytest.mark.slow
def test_other_instructions_give_the_same_bits(settings):
    program = "from test_exact import *; print(digest(logits_of_wiki_small()))"
    assert run_with(settings, program) == GOLDEN


def test_exp_and_the_tables_are_near_the_functions():
    x = np.linspace(-40, 40, 10_001)
    np.testing.assert_allclose(exp(x), np.exp(x), rtol=1e-11)
    np.testing.assert_allclose(SIGMOID(x), 1 / (1 + np.exp(-x)), atol=2.0**-12)
    np.testing.assert_allclose(EXP(-abs(x)), np.exp(-abs(x)), atol=2.0**-11)
    assert (EXP.values * 2.0**30 % 1 == 0).all()


def test_quantised_vectors_reach_the_largest_number_and_not_beyond():
    x = (
        np.random.default_rng(0).normal(size=(200, 30))
        * 10.0 ** np.linspace(-25, 100, 200)[:, None]
    )
    p, a = quantise(x, 127.0)
    assert (abs(p).max(axis=1) == 127).all()
    assert (abs(p * a - x) <= a * (0.5 + 1e-9)).all()
    p, a = quantise(np.zeros((1, 4)), 127.0)
    assert not p.any()
    assert a > 0


def test_norms_do_not_depend_on_the_order_of_the_elements():
    x = np.random.default_rng(0).normal(size=(3, 1000))
    order = np.random.default_rng(1).permutation(1000)
    assert (normalise(x)[:, order] == normalise(x[:, order])).all()
    expected = torch.nn.functional.layer_norm(torch.from_numpy(x), (1000,))
    np.testing.assert_allclose(normalise(x), expected, atol=1e-4)
    assert not normalise(np.zeros((2, 8))).any()


@pytest.mark.parametrize("kind", [np.int8, np.float32])
@pytest.mark.parametrize("columns", [1, 64, 1040, 1041, 5000])
def test_products_of_the_largest_integers_are_exact(kind, columns):
    if kind == np.int8 and products.storage() != np.int8:
        pytest.skip("this machine has no exact product of 8-bit integers")
    rng = np.random.default_rng(0)
    a = rng.choice([-127, 127], (2, columns)).astype(kind)
    b = np.full((columns, 3), 127, dtype=kind)
    expected = a.astype(np.int64) @ b.astype(np.int64)
    assert (multiply(a, b) == expected).all()
    assert (multiply(a, b[:, :1]) == expected[:, :1]).all()
    assert (multiply(abs(a), b[:, 0][:, None]) == columns * 127**2).all()  # a stride of 0


@pytest.mark.parametrize("result", ["saturated", "missing"])
def test_int8_is_not_used_where_its_products_are_wrong_or_missing(monkeypatch, result):
    def saturated(a, b):
        return (a.int() @ b.int()).clamp(max=2**15)

    def missing(a, b):
        raise RuntimeError("not implemented")

    monkeypatch.setattr(torch, "_int_mm", saturated if result == "saturated" else missing)
    assert products.storage.__wrapped__() is np.float32


def test_a_matrix_has_8_bits_per_weight():
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    matrix = IntegerMatrix(weight)
    rows = matrix.rows(np.arange(20))
    steps = weight.abs().amax(dim=1, keepdim=True).numpy() / 127
    assert (abs(rows - weight.numpy()) <= 0.501 * steps).all()
    x = np.eye(30) * 127
    np.testing.assert_allclose(matrix(x), x @ rows.T, rtol=1e-12)


@pytest.mark.parametrize("shifted_keys", [False, True])
def test_a_ring_has_the_newest_rows(shifted_keys):
    rng = np.random.default_rng(0)
    integers = IntegerRing(2, 5, 8, shifted_keys=shifted_keys)
    floating = RingBuffer(2, 5, torch.zeros(8), shifted_keys)
    for _ in range(12):
        row, q = rng.normal(size=(2, 2, 8))
        integers.write(row)
        floating.write(torch.from_numpy(row))
        expected = floating.attend(torch.from_numpy(q).float()).numpy()
        np.testing.assert_allclose(integers.attend(q), expected, atol=0.06)


def test_the_value_gate_of_a_head_that_is_not_collapsed():
    torch.manual_seed(0)
    head = SingleHeadAttention(40, dropout=0.0)
    torch.nn.init.normal_(head.value_scale)
    expected = head.static_value_gate().detach().double().numpy()
    np.testing.assert_allclose(exact_value_gate(head), expected, atol=1e-6)


def test_models_that_are_too_large_are_refused():
    model = small_model(attention_layers=())
    with pytest.raises(InputError, match="memory of at most 100000"):
        ExactStepper(model, memory_limit=MAX_ROWS + 1)
    with torch.no_grad():
        model.output_bias[3] = math.nan
    with pytest.raises(InputError, match="output_bias contains NaN"):
        ExactStepper(model)


@pytest.mark.parametrize("shape", [*SHAPES[:3], *SHAPES[4:7], ALL_OPTIONS], ids=str)
def test_gradients_are_those_of_autograd(fine, monkeypatch, shape):
    def constant(self, *arguments):
        output, weights = attend(self, *arguments)
        return output.detach(), weights

    attend = SingleHeadAttention.forward
    monkeypatch.setattr(SingleHeadAttention, "forward", constant)
    monkeypatch.setattr(learning, "LARGEST", 2.0**20)
    monkeypatch.setattr(learning, "SIGMOID", stepper.SIGMOID)
    monkeypatch.setattr(learning, "storage", lambda: np.float64)
    model = small_model(**{"memory": 100, **shape, "dropout": 0.0}).double()
    x = torch.randint(256, (3, 41), generator=torch.Generator().manual_seed(0))
    exact = LearningStepper(model, 3)
    for column in x[:, :20].numpy().T:
        exact.step(column)
    exact.gradients(x[:, 20].numpy())
    for column in x[:, 20:40].numpy().T:
        exact.step(column)
    gradients = exact.gradients(x[:, 40].numpy())
    _, state = model(x[:, :20])
    logits, _ = model(x[:, 20:40], state)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), x[:, 21:].flatten()).backward()
    expected = {"embedding": model.embedding.weight.grad}
    for number, block in enumerate(model.blocks):
        expected[f"{number}.input"] = block.lstm.weight_ih_l0.grad
        expected[f"{number}.recurrent"] = block.lstm.weight_hh_l0.grad
        expected[f"{number}.expand"] = block.boom.expand.weight.grad
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        size = expected[name].abs().max()
        torch.testing.assert_close(
            torch.from_numpy(gradient), expected[name][: len(gradient)], rtol=0, atol=2e-3 * size
        )
