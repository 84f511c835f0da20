"""What the optimisers share: all tensors move together, and a bad step can be called off unread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class TogetherOptimizer(torch.optim.Optimizer):
    """An optimiser that moves all parameters of a group by a rule of its own, `_update`.

    A rule works on lists of tensors, so that a GPU starts a few large kernels instead of many
    small ones, and reads no number back from the device. A step can be called off without a look
    at it either, as in torch's fused optimisers: where ``found_inf`` is set and not 0, weights
    and state stay as they are.
    """

    # What torch.amp.GradScaler asks before it hands over grad_scale and found_inf unread.
    _step_supports_amp_scaling = True

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
        skip = getattr(self, "found_inf", None)
        keep: float | Tensor = 1.0
        if skip is not None and skip.device.type == "cpu":
            if skip.item():
                return loss
        elif skip is not None:
            keep = (skip == 0).float().reshape(())  # 0 turns each change below into none
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._update(weights, self._gradients(weights, keep), group, keep)
        return loss

    def _gradients(self, weights: list[Tensor], keep: float | Tensor) -> list[Tensor]:
        """The gradients, unscaled, and 0 where the step is called off: they may be infinite."""
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        scale = getattr(self, "grad_scale", None)
        if scale is not None:
            gradients = list(torch._foreach_mul(gradients, scale.reciprocal()))
        if isinstance(keep, Tensor):
            gradients = [torch.where(keep > 0, g, torch.zeros_like(g)) for g in gradients]
        return gradients

    def _update(
        self,
        weights: list[Tensor],
        gradients: list[Tensor],
        group: dict[str, Any],
        keep: float | Tensor,
    ) -> None:
        raise NotImplementedError

    def _states(self, weights: list[Tensor], *names: str) -> list[list[Tensor]]:
        """For each name the states of these weights under it, zeros where they are new."""
        for weight in weights:
            if not self.state[weight]:
                self.state[weight].update({name: torch.zeros_like(weight) for name in names})
        return [[self.state[weight][name] for weight in weights] for name in names]

    @staticmethod
    def _follow(
        means: list[Tensor], values: list[Tensor], decay: float, keep: float | Tensor
    ) -> None:
        """Moves running means: m = decay m + (1 - decay) v."""
        share = (1 - decay) * keep
        if isinstance(share, Tensor):
            torch._foreach_lerp_(means, values, [share] * len(means))
        else:
            torch._foreach_lerp_(means, values, share)

    @staticmethod
    def _follow_squares(
        squares: list[Tensor], values: list[Tensor], decay: float, keep: float | Tensor
    ) -> None:
        """Moves running means of squares: s = decay s + (1 - decay) v^2."""
        torch._foreach_mul_(squares, decay**keep)
        torch._foreach_addcmul_(squares, values, values, value=1 - decay)
