"""LAMB with a minimum trust ratio, the optimiser of the paper."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sharnn.optim.foreach import ForeachOptimizer

MAX_PARAM_NORM = 10.0


class Lamb(ForeachOptimizer):
    """LAMB with a minimum trust ratio and without bias correction.

    Each tensor takes an Adam step, scaled by the trust ratio: the norm of the parameter over the
    norm of the step. The minimum keeps parameters with a small norm moving.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        betas: decays of the running means of the gradient and of its square.
        eps: added to the root of the second mean.
        weight_decay: multiple of the parameter that is added to the step before its norm is taken.
        min_trust: minimum trust ratio; None for plain LAMB.

    Source: paper, minimum trust; You et al. 2019, algorithm 2.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(4))
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

    def _update(
        self,
        params: list[Tensor],
        gradients: list[Tensor],
        group: dict[str, Any],
        enabled: float | Tensor,
    ) -> None:
        means, squares = self._states(params, "mean", "square")
        # m = b1 m + (1 - b1) g;  s = b2 s + (1 - b2) g^2, without bias correction
        beta1, beta2 = group["betas"]
        self._update_means(means, gradients, beta1, enabled)
        self._update_squares(squares, gradients, beta2, enabled)
        # r = m / (sqrt(s) + eps) + decay w
        roots = torch._foreach_sqrt(squares)
        torch._foreach_add_(roots, group["eps"])
        steps = torch._foreach_div(means, roots)
        if group["weight_decay"]:
            torch._foreach_add_(steps, params, alpha=group["weight_decay"])
        # trust = min(|w|, 10) / |r|, 1 if either norm is 0, and at least min_trust
        param_norms = torch.stack(torch._foreach_norm(params)).clamp(max=MAX_PARAM_NORM)
        step_norms = torch.stack(torch._foreach_norm(steps))  # (tensors,) both
        both = (param_norms > 0) & (step_norms > 0)
        trust = torch.where(both, param_norms / step_norms, torch.ones_like(step_norms))
        if group["min_trust"] is not None:
            trust = trust.clamp(min=group["min_trust"])
        for param, ratio in zip(params, trust.unbind(), strict=True):
            self.state[param]["trust"] = ratio  # for inspection only
        # w = w - lr trust r
        torch._foreach_mul_(steps, list((trust * group["lr"] * enabled).unbind()))
        torch._foreach_sub_(params, steps)
