"""Creates a recipe's optimiser and assigns each parameter to a group."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sharnn.optim.lamb import Lamb
from sharnn.optim.muon import Muon
from sharnn.recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Returns the optimiser that a recipe names, over all parameters of a model.

    LAMB applies weight decay to every parameter, as the paper does. AdamW and Muon apply it
    only to matrices other than the embedding.

    Args:
        model: the model to train.
        recipe: the optimiser's name and settings.

    Example:
        >>> recipe = Recipe(optimizer="adamw", lr=1e-3)
        >>> make_optimizer(nn.Linear(2, 2), recipe).defaults["lr"]
        0.001
    """
    settings: dict[str, Any] = {
        "lr": recipe.lr,
        "betas": (recipe.beta1, recipe.beta2),
        "eps": recipe.eps,
        "weight_decay": recipe.weight_decay,
    }
    if recipe.optimizer == "lamb":
        return Lamb(model.parameters(), min_trust=recipe.min_trust, **settings)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(_parameter_groups(model), fused=True, **settings)
    if recipe.optimizer == "muon":
        return Muon(_parameter_groups(model), **settings)
    raise NotImplementedError(f"optimizer {recipe.optimizer}")


def state_shapes(optimizer: torch.optim.Optimizer) -> list[dict[str, tuple[int, ...]]]:
    """Returns the names and shapes of the tensors that an optimiser keeps for each parameter.

    They are in the order of `state_dict`. A checkpoint is checked against them.

    Example:
        >>> state_shapes(Lamb([nn.Parameter(torch.ones(3))]))
        [{'mean': (3,), 'square': (3,), 'trust': ()}]
    """
    found = []
    for group in optimizer.param_groups:
        if isinstance(optimizer, Lamb):
            names, scalars = ["mean", "square"], ["trust"]
        elif isinstance(optimizer, torch.optim.AdamW):
            names, scalars = ["exp_avg", "exp_avg_sq"], ["step"]
        elif group["matrices"]:
            names, scalars = ["momentum"], []
        else:
            names, scalars = ["mean", "square"], ["steps"]
        for param in group["params"]:
            shapes = {name: tuple(param.shape) for name in names}
            found.append({**shapes, **dict.fromkeys(scalars, ())})
    return found


def _parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Returns the groups of AdamW and Muon: the LSTMs' stacked matrices, other matrices, the rest.

    The rest (vectors and the embedding) has no weight decay.
    """
    named = dict(model.named_parameters())
    gates = [p for name, p in named.items() if ".lstm.weight" in name]
    matrices = [
        p
        for name, p in named.items()
        if p.dim() == 2 and ".lstm." not in name and "embedding" not in name
    ]
    grouped = {id(p) for p in gates + matrices}
    rest = [p for p in named.values() if id(p) not in grouped]
    groups = [
        {"params": gates, "matrices": True, "stacked": 4},
        {"params": matrices, "matrices": True, "stacked": 1},
        {"params": rest, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
