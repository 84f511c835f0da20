"""Optimisers against plain sums, and the way parameters are dealt to them."""

import pytest
import torch
from sharnn.optim.factory import make_optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from sharnn import Lamb, Muon
from sharnn.optim.muon import orthogonalised
from small import small_model


def test_orthogonalised_keeps_directions_and_evens_their_sizes():
    matrices = torch.randn(3, 6, 10)
    left, singular, right = torch.linalg.svd(orthogonalised(matrices), full_matrices=False)
    assert ((singular > 0.6) & (singular < 1.3)).all()
    exact = torch.linalg.svd(matrices, full_matrices=False)
    polar = exact.U @ exact.Vh
    assert ((left @ right - polar).abs() < 0.1).all()


def test_orthogonalised_treats_tall_as_wide():
    matrices = torch.randn(2, 10, 6)
    torch.testing.assert_close(orthogonalised(matrices), orthogonalised(matrices.mT).mT)


def test_muon_treats_stacked_matrices_apart():
    gradient = torch.randn(12, 5)
    together = torch.nn.Parameter(torch.zeros(12, 5))
    together.grad = gradient
    Muon([{"params": [together], "matrices": True, "stacked": 4}], lr=0.1).step()
    for part, grad in zip(together.data.chunk(4), gradient.chunk(4), strict=True):
        alone = torch.nn.Parameter(torch.zeros(3, 5))
        alone.grad = grad.clone()
        Muon([{"params": [alone], "matrices": True}], lr=0.1).step()
        torch.testing.assert_close(part, alone.data)


def test_muon_takes_adamw_steps_where_there_are_no_matrices():
    ours, theirs = (torch.nn.Parameter(torch.ones(7)) for _ in range(2))
    settings = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
    muon, adamw = Muon([ours], **settings), torch.optim.AdamW([theirs], **settings)
    for _ in range(5):
        ours.grad = torch.randn(7)
        theirs.grad = ours.grad.clone()
        muon.step()
        adamw.step()
        torch.testing.assert_close(ours.data, theirs.data)


@pytest.mark.parametrize("name", ["lamb", "adamw", "muon"])
def test_every_parameter_is_dealt_once_and_moves(name):
    model = small_model(attention_layers=(0, 2))
    optimizer = make_optimizer(model, name, 1e-3, (0.9, 0.99), 1e-8, 0.0, 0.25)
    dealt = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(dealt) == sorted(id(p) for p in model.parameters())
    before = [p.detach().clone() for p in model.parameters()]
    logits, _ = model(torch.randint(256, (2, 9)))
    logits.square().sum().backward()
    optimizer.step()
    for (parameter_name, parameter), old in zip(model.named_parameters(), before, strict=True):
        assert not torch.equal(parameter, old), parameter_name


def test_weight_decay_falls_on_matrices_only_but_for_lamb():
    model = small_model()
    for name in ("adamw", "muon"):
        groups = make_optimizer(model, name, 1e-3, (0.9, 0.99), 1e-8, 0.1, None).param_groups
        for group in groups:
            for parameter in group["params"]:
                is_embedding = parameter is model.embedding.weight
                matrix = parameter.dim() == 2 and not is_embedding
                assert group["weight_decay"] == (0.1 if matrix else 0.0)


@pytest.mark.parametrize("optimizer", [Lamb, Muon])
def test_a_closure_is_called_with_gradients(optimizer):
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


def optimizers(weights):
    """One of each kind whose rule is ours, over copies of these weights."""
    matrix, vector = weights
    lamb = Lamb([torch.nn.Parameter(w.clone()) for w in weights], lr=0.1, weight_decay=0.1)
    groups = [
        {"params": [torch.nn.Parameter(matrix.clone())], "matrices": True, "stacked": 2},
        {"params": [torch.nn.Parameter(vector.clone())]},
    ]
    return lamb, Muon(groups, lr=0.1, weight_decay=0.1)


def parameters(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def everything(optimizer):
    """Weights and state by name, but for the trust ratios, which are there to look at only."""
    found = {}
    for i, weight in enumerate(parameters(optimizer)):
        found[f"{i}"] = weight.detach().clone()
        for name, tensor in optimizer.state[weight].items():
            if name != "trust":
                found[f"{i}.{name}"] = tensor.clone()
    return found


def move(optimizer, gradients, keep=1.0):
    """What `step` does on a device that must not be read: ``keep`` is a tensor there."""
    with torch.no_grad():
        for group in optimizer.param_groups:
            weights = group["params"]
            for weight in weights:
                weight.grad = gradients[weight.dim()].clone()
            optimizer._update(weights, optimizer._gradients(weights, keep), group, keep)


class NoReads(TorchDispatchMode):
    """Fails where a number is read back from a tensor: on a GPU the host would wait for it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function not in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.is_nonzero.default,
        )
        return function(*args, **(kwargs or {}))


def test_a_step_on_a_device_reads_nothing_back_and_is_the_same():
    weights = torch.randn(4, 3), torch.randn(5)
    for host, device in zip(optimizers(weights), optimizers(weights), strict=True):
        for _ in range(3):
            gradients = {2: torch.randn(4, 3), 1: torch.randn(5)}
            move(host, gradients)
            keep = torch.ones(())
            with NoReads():
                move(device, gradients, keep)
        torch.testing.assert_close(everything(device), everything(host))


def test_a_step_called_off_changes_nothing():
    weights = torch.randn(4, 3), torch.randn(5)
    for optimizer in optimizers(weights):
        move(optimizer, {2: torch.randn(4, 3), 1: torch.randn(5)})
        before = everything(optimizer)
        broken = {2: torch.full((4, 3), torch.inf), 1: torch.full((5,), torch.nan)}
        move(optimizer, broken, torch.zeros(()))
        after = everything(optimizer)
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_scaler_of_mixed_precision_calls_a_step_off():
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
    assert weight.grad.eq(2.0).all(), "it was unscaled for the step, not in place"
