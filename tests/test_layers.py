"""The parts of a block, compared with their equations."""

import pytest
import torch

from sharnn.layers import LSTM, Boom, Dropout, gelu


@pytest.mark.parametrize(("dim", "boom_dim"), [(8, 32), (8, 35), (7, 7), (6, 20)])
def test_boom_sums_whole_chunks_and_drops_the_remainder(dim, boom_dim):
    boom = Boom(dim, boom_dim)
    h = torch.randn(2, 3, dim)
    u = gelu(boom.expand(h))
    expected = torch.zeros(2, 3, dim)
    for chunk in range(boom_dim // dim):
        expected += u[..., chunk * dim : (chunk + 1) * dim]
    torch.testing.assert_close(boom(h), expected)


@pytest.mark.parametrize(("dim", "boom_dim"), [(8, 32), (8, 35), (64, 256)])
def test_under_autocast_boom_is_as_accurate_as_with_the_literal_gelu(dim, boom_dim, monkeypatch):
    """Outputs and gradients agree with those of float32 within the rounding of bfloat16."""
    boom, h, g = Boom(dim, boom_dim), torch.randn(4, 9, dim), torch.randn(4, 9, dim)
    torch.nn.init.normal_(boom.expand.weight, std=dim**-0.5)

    def results():
        x = h.clone().requires_grad_()
        y = boom(x)
        boom.zero_grad()
        y.backward(g.to(y.dtype))
        return [y.detach().float(), x.grad, boom.expand.weight.grad, boom.expand.bias.grad]

    def error(found):
        return torch.stack([(a - b).norm() / b.norm() for a, b in zip(found, exact, strict=True)])

    exact = results()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fast = results()
        monkeypatch.setattr("torch.nn.functional.silu", None)  # so the fast form would fail
        with monkeypatch.context() as patch:
            patch.setattr("torch.is_autocast_enabled", lambda device: False)
            literal = results()
        with pytest.raises(TypeError):
            results()
    assert (error(fast) < 1.5 * error(literal)).all()
    assert (error(fast) < 2**-7).all()


def test_gelu_is_the_sigmoid_approximation():
    x = torch.linspace(-5, 5, 101)
    torch.testing.assert_close(gelu(x), x / (1 + torch.exp(-1.702 * x)))


@pytest.mark.parametrize("time", [1, 6])
def test_lstm_equals_its_equations_with_and_without_gradients(time):
    lstm = LSTM(5)
    x = torch.randn(2, time, 5)
    h, c = torch.randn(2, 5), torch.randn(2, 5)
    with torch.no_grad():
        fast, (fast_h, fast_c) = lstm(x, (h, c))
    slow, (slow_h, slow_c) = lstm(x, (h, c))
    w, u = lstm.weight_ih_l0, lstm.weight_hh_l0
    b = lstm.bias_ih_l0 + lstm.bias_hh_l0
    for t in range(time):
        i, f, g, o = (x[:, t] @ w.T + h @ u.T + b).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        torch.testing.assert_close(slow[:, t], h, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(fast[:, t], h, rtol=1e-5, atol=1e-6)
    for ours in (fast_h, slow_h):
        torch.testing.assert_close(ours, h, rtol=1e-5, atol=1e-6)
    for ours in (fast_c, slow_c):
        torch.testing.assert_close(ours, c, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_zeroes_a_fraction_p_and_keeps_the_mean(p):
    dropout = Dropout(p).train()
    x = torch.ones(400, 1001)
    y = dropout(x)
    fraction = (y == 0).float().mean().item()
    assert fraction == pytest.approx(p, abs=0.005)
    assert y.mean().item() == pytest.approx(1, rel=0.03)
    assert len(y.unique()) == 2
    assert not torch.equal(dropout(x), y), "each call must draw a new mask"
    # Neighbours share a 64-bit random number but are dropped independently.
    both = ((y[:, :-1] == 0) & (y[:, 1:] == 0)).float().mean().item()
    assert both == pytest.approx(p * p, abs=0.01)


def test_the_gradient_of_dropout_has_the_same_mask():
    x = torch.ones(50, requires_grad=True)
    y = Dropout(0.5).train()(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_dropout_is_off_in_evaluation_and_at_0():
    x = torch.randn(5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x


def test_dropout_is_reproducible_with_a_seed():
    torch.manual_seed(3)
    first = Dropout(0.3).train()(torch.ones(100))
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.3).train()(torch.ones(100)), first)
