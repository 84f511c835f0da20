"""Optimisers: their steps, skipped steps, and the parameter groups of each."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sharnn import Lamb, Muon
from sharnn.optim import make_optimizer
from sharnn.optim.muon import orthogonalised
from sharnn.recipe import OPTIMIZERS
from small import OPTIONS, small_model, small_recipe


def test_orthogonalised_keeps_singular_vectors_and_evens_singular_values():
    matrices = torch.randn(3, 6, 10)
    left, singular, right = torch.linalg.svd(orthogonalised(matrices), full_matrices=False)
    assert ((singular > 0.6) & (singular < 1.3)).all()
    exact = torch.linalg.svd(matrices, full_matrices=False)
    polar = exact.U @ exact.Vh
    assert ((left @ right - polar).abs() < 0.1).all()


def test_orthogonalised_treats_tall_matrices_like_wide_ones():
    matrices = torch.randn(2, 10, 6)
    torch.testing.assert_close(orthogonalised(matrices), orthogonalised(matrices.mT).mT)


def test_muon_orthogonalises_stacked_matrices_separately():
    gradient = torch.randn(12, 5)
    stacked = torch.nn.Parameter(torch.zeros(12, 5))
    stacked.grad = gradient
    Muon([{"params": [stacked], "matrices": True, "stacked": 4}], lr=0.1).step()
    for part, grad in zip(stacked.data.chunk(4), gradient.chunk(4), strict=True):
        alone = torch.nn.Parameter(torch.zeros(3, 5))
        alone.grad = grad.clone()
        Muon([{"params": [alone], "matrices": True}], lr=0.1).step()
        torch.testing.assert_close(part, alone.data)


def test_muon_takes_adamw_steps_for_groups_without_matrices():
    ours, theirs = (torch.nn.Parameter(torch.ones(7)) for _ in range(2))
    settings = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
    muon, adamw = Muon([ours], **settings), torch.optim.AdamW([theirs], **settings)
    for _ in range(5):
        ours.grad = torch.randn(7)
        theirs.grad = ours.grad.clone()
        muon.step()
        adamw.step()
        torch.testing.assert_close(ours.data, theirs.data)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_every_parameter_is_in_one_group_and_is_updated(name, options):
    model = small_model(attention_layers=(0, 2), **options)
    optimizer = make_optimizer(model, small_recipe(optimizer=name))
    assert type(optimizer).__name__.lower() == name
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    before = [p.detach().clone() for p in model.parameters()]
    logits, _ = model(torch.randint(256, (2, 9)))
    logits.square().sum().backward()
    optimizer.step()
    for (parameter_name, parameter), old in zip(model.named_parameters(), before, strict=True):
        assert not torch.equal(parameter, old), parameter_name


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_only_lamb_decays_more_than_the_matrices(name, options):
    model = small_model(**options)
    groups = make_optimizer(model, small_recipe(optimizer=name, weight_decay=0.1)).param_groups
    for group in groups:
        for parameter in group["params"]:
            is_embedding = parameter is model.embedding.weight
            is_matrix = parameter.dim() == 2 and not is_embedding
            assert group["weight_decay"] == (0.1 if is_matrix or name == "lamb" else 0.0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_has_the_recipes_settings(name):
    settings = {"optimizer": name, "lr": 0.2, "eps": 1e-5, "beta1": 0.5, "beta2": 0.6}
    recipe = small_recipe(**settings, min_trust=0.125)
    defaults = make_optimizer(small_model(), recipe).defaults
    assert (defaults["lr"], defaults["eps"], defaults["betas"]) == (0.2, 1e-5, (0.5, 0.6))
    assert defaults.get("min_trust") == (0.125 if name == "lamb" else None)


@pytest.mark.parametrize("optimizer", [Lamb, Muon])
def test_a_closure_is_called_with_gradients_enabled(optimizer):
    weight = torch.nn.Parameter(torch.ones(3))

    def closure():
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer([weight], lr=0.1).step(closure) == 3.0
    assert (weight < 1).all()


def test_lamb_trust_is_1_for_zero_weights_and_at_least_the_minimum():
    zero, small = torch.nn.Parameter(torch.zeros(4)), torch.nn.Parameter(torch.full((4,), 1e-6))
    optimizer = Lamb([zero, small], lr=0.1, min_trust=0.25)
    zero.grad, small.grad = torch.ones(4), torch.ones(4)
    optimizer.step()
    assert optimizer.state[zero]["trust"] == 1
    assert optimizer.state[small]["trust"] == 0.25


def optimizers():
    """Returns one optimiser of each of our classes, over the same matrix and vector."""
    matrix, vector = torch.linspace(-1, 1, 12).view(4, 3), torch.linspace(1, 2, 5)
    params = [torch.nn.Parameter(tensor.clone()) for tensor in (matrix, vector)]
    groups = [
        {"params": [torch.nn.Parameter(matrix.clone())], "matrices": True, "stacked": 2},
        {"params": [torch.nn.Parameter(vector.clone())]},
    ]
    return Lamb(params, lr=0.1, weight_decay=0.1), Muon(groups, lr=0.1, weight_decay=0.1)


def random_gradients():
    return torch.randn(4, 3), torch.randn(5)


def parameters(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def snapshot(optimizer):
    """Returns parameters and state by name, without the trust ratios, which no step reads."""
    found = {}
    for i, parameter in enumerate(parameters(optimizer)):
        found[f"{i}"] = parameter.detach().clone()
        for name, tensor in optimizer.state[parameter].items():
            if name != "trust":
                found[f"{i}.{name}"] = tensor.clone()
    return found


def take_step(optimizer, gradients, found_inf=None):
    """Takes a step with these gradients; ``found_inf`` is what the trainer sets."""
    for parameter, gradient in zip(parameters(optimizer), gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.found_inf = found_inf
    optimizer.step()


@pytest.fixture(params=["host", "device"])
def branch(request, monkeypatch):
    """Takes both branches of `step`: ``found_inf`` is read, or stays on the (simulated) device."""
    readable = request.param == "host"
    monkeypatch.setattr("sharnn.optim.foreach.host_can_read", lambda tensor: readable)
    return request.param


class NoReads(TorchDispatchMode):
    """Fails if a tensor's value is read: on a GPU the host would wait for it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function not in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.is_nonzero.default,
        ), "a value was read"
        return function(*args, **(kwargs or {}))


def test_a_step_on_a_device_reads_no_value_and_gives_the_same_numbers(monkeypatch):
    for host, device in zip(optimizers(), optimizers(), strict=True):
        for _ in range(3):
            gradients = random_gradients()
            take_step(host, gradients)
            with monkeypatch.context() as patch, NoReads():
                patch.setattr("sharnn.optim.foreach.host_can_read", lambda tensor: False)
                take_step(device, gradients, found_inf=torch.zeros(()))
        torch.testing.assert_close(snapshot(device), snapshot(host))


def test_a_step_on_the_host_reads_found_inf():
    for optimizer in optimizers():
        with pytest.raises(AssertionError, match="a value was read"), NoReads():
            take_step(optimizer, random_gradients(), found_inf=torch.zeros(()))


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_a_skipped_step_changes_nothing(branch, value):
    broken = torch.full((4, 3), value), torch.full((5,), value)
    for optimizer in optimizers():
        take_step(optimizer, random_gradients())
        before = snapshot(optimizer)
        take_step(optimizer, broken, found_inf=torch.ones(()))
        after = snapshot(optimizer)
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_step_after_a_skipped_one_is_as_if_there_had_been_none(branch):
    broken = torch.full((4, 3), torch.inf), torch.full((5,), torch.nan)
    for skipping, plain in zip(optimizers(), optimizers(), strict=True):
        for _ in range(2):
            gradients = random_gradients()
            take_step(skipping, broken, found_inf=torch.ones(1))
            for optimizer in (skipping, plain):
                take_step(optimizer, gradients, found_inf=torch.zeros(1))
        torch.testing.assert_close(snapshot(skipping), snapshot(plain), rtol=0, atol=0)


def test_the_loss_scaler_skips_a_step(branch):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = Lamb([weight], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor, expected in ((torch.inf, 1.0), (1.0, 0.9)):
        optimizer.zero_grad()
        scaler.scale((weight * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        torch.testing.assert_close(weight.data, torch.full((3,), expected))
    assert scaler.get_scale() == 2.0
    assert weight.grad.eq(2.0).all(), "the step must not unscale the gradient in place"
