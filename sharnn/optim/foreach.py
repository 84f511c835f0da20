"""The base class of our optimisers, which updates all parameters of a group at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class ForeachOptimizer(torch.optim.Optimizer):
    """An optimiser whose update rule, `_update`, works on lists of tensors.

    On a GPU a rule on lists starts a few large kernels instead of many small ones. It never reads
    a number back from the device, which would make the host wait. This also holds for skipped
    steps: as in torch's fused optimisers, if the attribute ``found_inf`` is set and not 0, the
    step leaves parameters and state unchanged.
    """

    # With this flag torch.amp.GradScaler passes on grad_scale and found_inf without reading them.
    _step_supports_amp_scaling = True

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Updates every parameter that has a gradient.

        Args:
            closure: recomputes the loss with gradients, as in `torch.optim`.

        Returns:
            The closure's loss; None without a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf = getattr(self, "found_inf", None)
        enabled: float | Tensor = 1.0  # 0 skips the step: it multiplies every change below
        if found_inf is not None:
            if not host_can_read(found_inf):
                enabled = (found_inf == 0).float().reshape(())
            elif found_inf.item():
                return loss
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                self._update(params, self._gradients(params, enabled), group, enabled)
        return loss

    def _gradients(self, params: list[Tensor], enabled: float | Tensor) -> list[Tensor]:
        """Returns the unscaled gradients; zeros if the step is skipped on the device."""
        gradients = [param.grad for param in params if param.grad is not None]
        scale = getattr(self, "grad_scale", None)
        if scale is not None:
            gradients = list(torch._foreach_mul(gradients, scale.reciprocal()))
        if isinstance(enabled, Tensor):
            # The gradients of a skipped step may be infinite, and 0 times infinity is NaN.
            gradients = [torch.where(enabled > 0, g, torch.zeros_like(g)) for g in gradients]
        return gradients

    def _update(
        self,
        params: list[Tensor],
        gradients: list[Tensor],
        group: dict[str, Any],
        enabled: float | Tensor,
    ) -> None:
        """Applies the update rule to some parameters of a group.

        Args:
            params: the parameters that have a gradient.
            gradients: their gradients.
            group: the group's settings.
            enabled: 1 to take the step, 0 to leave parameters and state unchanged; a tensor (0-d)
                if its value is on a device.
        """
        raise NotImplementedError

    def _states(self, params: list[Tensor], *names: str) -> list[list[Tensor]]:
        """Returns one list of state tensors for each name; new ones are zeros."""
        for param in params:
            if not self.state[param]:
                self.state[param].update({name: torch.zeros_like(param) for name in names})
        return [[self.state[param][name] for param in params] for name in names]

    @staticmethod
    def _update_means(
        means: list[Tensor], values: list[Tensor], decay: float, enabled: float | Tensor
    ) -> None:
        """Updates running means in place: m = decay m + (1 - decay) v."""
        weight = (1 - decay) * enabled
        if isinstance(weight, Tensor):
            torch._foreach_lerp_(means, values, [weight] * len(means))
        else:
            torch._foreach_lerp_(means, values, weight)

    @staticmethod
    def _update_squares(
        squares: list[Tensor], values: list[Tensor], decay: float, enabled: float | Tensor
    ) -> None:
        """Updates running means of squares in place: s = decay s + (1 - decay) v^2.

        If the step is skipped, the values are zeros.
        """
        torch._foreach_mul_(squares, decay**enabled)
        torch._foreach_addcmul_(squares, values, values, value=1 - decay)


def host_can_read(tensor: Tensor) -> bool:
    """Returns True if the host can read a tensor's value without waiting for a device.

    Example:
        >>> host_can_read(torch.zeros(()))
        True
    """
    return tensor.device.type == "cpu"
