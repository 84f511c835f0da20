"""The optimiser that a recipe names, and which parameters it treats how."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sharnn.optim.lamb import Lamb
from sharnn.optim.muon import Muon


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
    groups = [group for group in groups if group["params"]]
    settings: dict[str, Any] = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    if name == "adamw":
        return torch.optim.AdamW(groups, fused=True, **settings)
    return {"muon": Muon}[name](groups, **settings)
