"""The optimisers: LAMB with minimum trust, as the paper trained, and Muon for small models."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

WEIGHT_NORM_CAP = 10.0


class _TensorByTensor(torch.optim.Optimizer):
    """An optimiser that moves each parameter by a rule of its own, `_update`."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Moves every parameter that has a gradient.

        Args:
            closure: recomputes the loss with gradients, as in `torch.optim`.

        Returns:
            The closure's loss, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)
        return loss

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        raise NotImplementedError


class Lamb(_TensorByTensor):
    """LAMB with a minimum trust ratio and without bias correction.

    Each tensor takes an Adam step whose length is scaled by the trust ratio, the norm of the
    weights over the norm of the step. The minimum keeps tensors with small weights moving.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the root of the second mean.
        weight_decay: this share of the weights is added to the step before its norm is taken.
        min_trust: the least trust ratio; None for plain LAMB.

    Source: paper, minimum trust; You et al. 2019, algorithm 2.

    Example:
        >>> weight = nn.Parameter(torch.ones(4))
        >>> optimizer = Lamb([weight], lr=0.1)
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> weight.data
        tensor([0.9000, 0.9000, 0.9000, 0.9000])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        min_trust: float | None = 0.25,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "min_trust": min_trust,
        }
        super().__init__(params, defaults)

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["mean"] = torch.zeros_like(weight)
            state["square"] = torch.zeros_like(weight)
        # m = b1 m + (1 - b1) g;  s = b2 s + (1 - b2) g^2, without bias correction
        beta1, beta2 = group["betas"]
        state["mean"].lerp_(weight.grad, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(weight.grad, weight.grad, value=1 - beta2)
        # r = m / (sqrt(s) + eps) + decay w
        step = state["mean"] / state["square"].sqrt().add_(group["eps"])
        if group["weight_decay"]:
            step.add_(weight, alpha=group["weight_decay"])
        # trust = min(|w|, 10) / |r|, 1 where either is 0, and at least min_trust
        weight_norm = weight.norm().clamp(max=WEIGHT_NORM_CAP)
        step_norm = step.norm()
        both = (weight_norm > 0) & (step_norm > 0)
        trust = torch.where(both, weight_norm / step_norm, torch.ones_like(step_norm))
        if group["min_trust"] is not None:
            trust = trust.clamp(min=group["min_trust"])
        state["trust"] = trust  # kept for whoever wants to look
        # w = w - lr trust r
        weight.sub_(step.mul_(trust * group["lr"]))


class Muon(_TensorByTensor):
    """Muon for matrices: momentum whose singular values are all pushed towards 1.

    A group with ``matrices=True`` holds matrices only; each may stand for several stacked ones
    (an LSTM's four gates), which are treated apart. Other groups take AdamW steps. An update of
    Muon is scaled to the size of an AdamW step, so one learning rate and decay serve both.

    Args:
        params: parameters or parameter groups; a group may set ``matrices`` and ``stacked``.
        lr: learning rate.
        momentum: decay of Muon's running mean of the gradient.
        betas: AdamW's decays.
        eps: AdamW's epsilon.
        weight_decay: decoupled; the weights shrink by ``lr * weight_decay`` a step.

    Source: Jordan et al. 2024, "Muon"; the scale 0.2 sqrt(max(rows, columns)) from Liu et al.
    2025, "Muon is scalable for LLM training".

    Example:
        >>> weight = nn.Parameter(torch.eye(4))
        >>> optimizer = Muon([{"params": [weight], "matrices": True}], lr=0.1)
        >>> weight.diagonal().sum().backward()
        >>> optimizer.step()
        >>> bool((weight.diagonal() < 1).all())
        True
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "matrices": False,
            "stacked": 1,
        }
        super().__init__(params, defaults)

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        direction = self._matrix_step if group["matrices"] else self._adam_step
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_(direction(weight, group).mul_(group["lr"]))

    def _matrix_step(self, weight: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        # m = mu m + (1 - mu) g;  the step looks ahead (Nesterov): mu m + (1 - mu) g
        state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
        assert weight.grad is not None
        ahead = torch.lerp(weight.grad, state["momentum"], group["momentum"])
        matrices = ahead.unflatten(0, (group["stacked"], -1))  # (stacked, rows, columns)
        scale = 0.2 * max(matrices.shape[1:]) ** 0.5
        return orthogonalised(matrices).flatten(0, 1).mul_(scale)

    def _adam_step(self, weight: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[weight]
        if not state:
            state["steps"] = torch.zeros((), dtype=torch.float32)
            state["mean"] = torch.zeros_like(weight)
            state["square"] = torch.zeros_like(weight)
        beta1, beta2 = group["betas"]
        state["steps"] += 1
        steps = state["steps"].item()
        state["mean"].lerp_(weight.grad, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(weight.grad, weight.grad, value=1 - beta2)
        # m / (1 - b1^t) / (sqrt(s / (1 - b2^t)) + eps)
        root = (state["square"] / (1 - beta2**steps)).sqrt_().add_(group["eps"])
        return (state["mean"] / (1 - beta1**steps)).div_(root)


def orthogonalised(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Pushes all singular values of each matrix towards 1, by the Newton-Schulz iteration.

    Args:
        matrices: (count, rows, columns) floats.
        iterations: 5 bring singular values to between about 0.7 and 1.2.

    Returns:
        (count, rows, columns).

    Source: Jordan et al. 2024, "Muon", with its quintic's coefficients.

    Example:
        >>> singular = torch.linalg.svdvals(orthogonalised(torch.randn(1, 8, 4)))
        >>> bool(((singular > 0.5) & (singular < 1.5)).all())
        True
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    # X = a X + (b A + c A^2) X with A = X X'
    for _ in range(iterations):
        gram = x @ x.mT  # (count, rows, rows)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def make_optimizer(
    model: nn.Module,
    name: str,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    min_trust: float | None,
) -> torch.optim.Optimizer:
    """The optimiser a recipe names, over all parameters of a model.

    Args:
        model: the model to train.
        name: ``"lamb"``, ``"adamw"`` or ``"muon"``.
        lr: learning rate.
        betas: decays of the running means.
        eps: epsilon of the root.
        weight_decay: for LAMB on every tensor, as the paper; for the others on matrices only.
        min_trust: LAMB's least trust ratio.

    Returns:
        The optimiser.

    Raises:
        KeyError: there is no optimiser of that name.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> make_optimizer(model, "adamw", 1e-3, (0.9, 0.99), 1e-8, 0.0, None).defaults["lr"]
        0.001
    """
    named = dict(model.named_parameters())
    if name == "lamb":
        return Lamb(named.values(), lr, betas, eps, weight_decay, min_trust)
    gates = [p for n, p in named.items() if ".lstm.weight" in n]
    matrices = [
        p for n, p in named.items() if p.dim() == 2 and ".lstm." not in n and "embedding" not in n
    ]
    taken = {id(p) for p in gates + matrices}
    rest = [p for p in named.values() if id(p) not in taken]
    groups = [
        {"params": gates, "matrices": True, "stacked": 4},
        {"params": matrices, "matrices": True, "stacked": 1},
        {"params": rest, "weight_decay": 0.0},
    ]
    make: Callable[..., torch.optim.Optimizer] = {"muon": Muon, "adamw": torch.optim.AdamW}[name]
    return make(
        [group for group in groups if group["params"]],
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
    )
