"""Muon, the optimiser of the laptop presets: it learns most in a short run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sharnn.optim.foreach import TogetherOptimizer
from sharnn.precision import multiplies_bfloat16_fast


class Muon(TogetherOptimizer):
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
        >>> weight = torch.nn.Parameter(torch.eye(4))
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

    def _update(
        self,
        weights: list[Tensor],
        gradients: list[Tensor],
        group: dict[str, Any],
        keep: float | Tensor,
    ) -> None:
        direction = self._matrix_steps if group["matrices"] else self._adam_steps
        steps = direction(weights, gradients, group, keep)
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"] * keep)
        torch._foreach_mul_(steps, group["lr"] * keep)
        torch._foreach_sub_(weights, steps)

    def _matrix_steps(
        self,
        weights: list[Tensor],
        gradients: list[Tensor],
        group: dict[str, Any],
        keep: float | Tensor,
    ) -> list[Tensor]:
        (momenta,) = self._states(weights, "momentum")
        # m = mu m + (1 - mu) g;  the step looks ahead (Nesterov): mu m + (1 - mu) g
        self._follow(momenta, gradients, group["momentum"], keep)
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        # Matrices of one shape go through the products together.
        steps: list[Tensor] = [torch.empty(0)] * len(weights)
        for shape in {tensor.shape for tensor in ahead}:
            places = [i for i, tensor in enumerate(ahead) if tensor.shape == shape]
            matrices = torch.stack([ahead[i] for i in places])  # (places, rows, columns)
            matrices = matrices.unflatten(1, (group["stacked"], -1)).flatten(0, 1)
            scale = 0.2 * max(matrices.shape[1:]) ** 0.5
            moves = orthogonalised(matrices).mul_(scale).view(len(places), *shape)
            for i, move in zip(places, moves.unbind(), strict=True):
                steps[i] = move
        return steps

    def _adam_steps(
        self,
        weights: list[Tensor],
        gradients: list[Tensor],
        group: dict[str, Any],
        keep: float | Tensor,
    ) -> list[Tensor]:
        means, squares = self._states(weights, "mean", "square")
        beta1, beta2 = group["betas"]
        for weight in weights:
            state = self.state[weight]
            state.setdefault("steps", torch.zeros((), dtype=torch.float32, device=weight.device))
            state["steps"] += keep
        steps = torch.stack([self.state[weight]["steps"] for weight in weights])  # (tensors,)
        self._follow(means, gradients, beta1, keep)
        self._follow_squares(squares, gradients, beta2, keep)
        # m / (1 - b1^t) / (sqrt(s / (1 - b2^t)) + eps)
        roots = torch._foreach_div(squares, list((1 - beta2**steps).unbind()))
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, group["eps"])
        moves = torch._foreach_div(means, list((1 - beta1**steps).unbind()))
        torch._foreach_div_(moves, roots)
        return list(moves)


def orthogonalised(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Pushes all singular values of each matrix towards 1, by the Newton-Schulz iteration.

    The products are computed in bfloat16 where the machine multiplies it fast: the iteration
    aims at values near 1, not at 1, and bears the rounding.

    Args:
        matrices: (count, rows, columns) floats.
        iterations: 5 bring singular values to between about 0.7 and 1.2.

    Returns:
        (count, rows, columns) of the same dtype.

    Source: Jordan et al. 2024, "Muon", with its quintic's coefficients.

    Example:
        >>> singular = torch.linalg.svdvals(orthogonalised(torch.randn(1, 8, 4)))
        >>> bool(((singular > 0.5) & (singular < 1.5)).all())
        True
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    smallest = torch.finfo(x.dtype).tiny  # a matrix of zeros stays one
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=smallest)
    if multiplies_bfloat16_fast(x.device):
        x = x.bfloat16()
    # X = a X + (b A + c A^2) X with A = X X'
    for _ in range(iterations):
        gram = x @ x.mT  # (count, rows, rows)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.to(matrices.dtype)
    return x.mT.contiguous() if tall else x
