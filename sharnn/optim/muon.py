"""Muon, the optimiser of the laptop presets, whose runs are short."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sharnn.device import has_fast_bfloat16
from sharnn.optim.foreach import ForeachOptimizer


class Muon(ForeachOptimizer):
    """Updates matrices with orthogonalised momentum (Muon), and other parameters with AdamW.

    A group with ``matrices=True`` holds matrices only. Each may consist of several stacked
    matrices (those of an LSTM's four gates), which are orthogonalised separately. Other groups
    take AdamW steps. Muon's steps are scaled to the size of AdamW's, so that both use the same
    learning rate and weight decay.

    Args:
        params: parameters or parameter groups; a group may set ``matrices`` and ``stacked``, the
            number of matrices stacked in each of its parameters.
        lr: learning rate.
        momentum: decay of Muon's running mean of the gradient.
        betas: AdamW's decays.
        eps: AdamW's epsilon.
        weight_decay: decoupled; each step shrinks the parameters by ``lr * weight_decay``.

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
        params: list[Tensor],
        gradients: list[Tensor],
        group: dict[str, Any],
        enabled: float | Tensor,
    ) -> None:
        compute_steps = self._matrix_steps if group["matrices"] else self._adam_steps
        steps = compute_steps(params, gradients, group, enabled)
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"] * enabled)
        torch._foreach_mul_(steps, group["lr"] * enabled)
        torch._foreach_sub_(params, steps)

    def _matrix_steps(
        self,
        params: list[Tensor],
        gradients: list[Tensor],
        group: dict[str, Any],
        enabled: float | Tensor,
    ) -> list[Tensor]:
        """Returns the steps of matrices: the orthogonalised momentum."""
        (momenta,) = self._states(params, "momentum")
        # m = mu m + (1 - mu) g;  the step looks ahead (Nesterov): mu m + (1 - mu) g
        self._update_means(momenta, gradients, group["momentum"], enabled)
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        # Matrices of the same shape are multiplied as one batch.
        steps: list[Tensor] = [torch.empty(0)] * len(params)
        for shape in {tensor.shape for tensor in ahead}:
            indices = [i for i, tensor in enumerate(ahead) if tensor.shape == shape]
            matrices = torch.stack([ahead[i] for i in indices])  # (indices, rows, columns)
            matrices = matrices.unflatten(1, (group["stacked"], -1)).flatten(0, 1)
            scale = 0.2 * max(matrices.shape[1:]) ** 0.5
            batch = orthogonalised(matrices).mul_(scale).view(len(indices), *shape)
            for i, step in zip(indices, batch.unbind(), strict=True):
                steps[i] = step
        return steps

    def _adam_steps(
        self,
        params: list[Tensor],
        gradients: list[Tensor],
        group: dict[str, Any],
        enabled: float | Tensor,
    ) -> list[Tensor]:
        """Returns AdamW's steps, without the weight decay."""
        means, squares = self._states(params, "mean", "square")
        beta1, beta2 = group["betas"]
        for param in params:
            state = self.state[param]
            state.setdefault("steps", torch.zeros((), dtype=torch.float32, device=param.device))
            state["steps"] += enabled
        counts = torch.stack([self.state[param]["steps"] for param in params])  # (tensors,)
        counts = counts.clamp(min=1)  # 0 if all steps so far were skipped; 0 / 0 would be NaN
        self._update_means(means, gradients, beta1, enabled)
        self._update_squares(squares, gradients, beta2, enabled)
        # m / (1 - b1^t) / (sqrt(s / (1 - b2^t)) + eps)
        roots = torch._foreach_div(squares, list((1 - beta2**counts).unbind()))
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, group["eps"])
        steps = torch._foreach_div(means, list((1 - beta1**counts).unbind()))
        torch._foreach_div_(steps, roots)
        return list(steps)


def orthogonalised(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Pushes all singular values of each matrix towards 1 with the Newton-Schulz iteration.

    The products are computed in bfloat16 if the device has fast ones. The rounding does no harm:
    the iteration aims at values near 1, not at 1.

    Args:
        matrices: (count, rows, columns) floats.
        iterations: number of iterations; 5 bring the singular values to between about 0.7 and 1.2.

    Returns:
        (count, rows, columns) of the same dtype.

    Source: Jordan et al. 2024, "Muon", with its coefficients of the quintic.

    Example:
        >>> singular = torch.linalg.svdvals(orthogonalised(torch.randn(1, 8, 4)))
        >>> bool(((singular > 0.5) & (singular < 1.5)).all())
        True
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    smallest = torch.finfo(x.dtype).tiny  # a matrix of zeros stays zero
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=smallest)
    if has_fast_bfloat16(x.device):
        x = x.bfloat16()
    # X = a X + (b A + c A^2) X with A = X X'
    for _ in range(iterations):
        gram = x @ x.mT  # (count, rows, rows)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.to(matrices.dtype)
    return x.mT.contiguous() if tall else x
