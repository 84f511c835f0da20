"""A model's weights before use: found behind wrappers, checked, and copied canonically."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor, nn

from sharnn.config import ModelConfig
from sharnn.errors import InputError
from sharnn.model import SHARNN, require_finite

# Attributes in which wrappers keep the module that they wrap: `torch.compile`; DataParallel,
# DistributedDataParallel and AveragedModel.
WRAPPED = ("_orig_mod", "module")
# The fingerprint has no fields of ModelConfig that don't change the predictions of given weights.
# (The names of the weights show whether there is an ``lstm_skip``.) Newer fields are left out while
# they have their default: otherwise no existing archive would match its model.
TRAINING_ONLY = ("dropout", "query_gain", "lstm_skip")
LATER_FIELDS = ("shifted_keys",)
DEFAULTS = ModelConfig().to_dict()


def unwrap(model: nn.Module) -> SHARNN:
    """Returns the model inside wrappers, such as those of `torch.compile` and DataParallel.

    Args:
        model: a model, which is returned unchanged, or a wrapper of one.

    Raises:
        InputError: it is something else.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=8, boom_dim=32))
        >>> unwrap(nn.DataParallel(model)) is model
        True
    """
    inner: object = model
    while not isinstance(inner, SHARNN):
        parts = [getattr(inner, name, None) for name in WRAPPED]
        inner = next((part for part in parts if isinstance(part, nn.Module)), None)
        if inner is None:
            raise InputError(f"model must be a SHARNN, got {type(model).__name__}")
    return inner


def usable(model: nn.Module) -> SHARNN:
    """Returns the model inside wrappers, if all of its weights are finite.

    Everything that uses a model calls this first, except training, which skips steps with NaN.

    Args:
        model: a model or a wrapper of one.

    Raises:
        InputError: a weight is NaN or Inf, or ``model`` is not a SHARNN.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=8, boom_dim=32))
        >>> usable(model) is model
        True
        >>> _ = nn.init.constant_(model.output_bias, float("nan"))
        >>> usable(model)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        sharnn.errors.DamagedModelError: the model is damaged: output_bias contains NaN or Inf; ...
    """
    inner = unwrap(model)
    for name, weight in inner.state_dict().items():
        require_finite(weight, _without_wrappers(name))
    return inner


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """Returns the weights by their names in a checkpoint, also if parts of the model are wrapped.

    Args:
        model: a model or a wrapper of one.

    Returns:
        Tensors by name, not copied and without gradients.

    Raises:
        InputError: names or shapes are not those of the model's configuration, for example because
            a weight is pruned or parametrised.
    """
    inner = unwrap(model)
    weights = {_without_wrappers(n): weight.detach() for n, weight in inner.state_dict().items()}
    with torch.device("meta"):
        expected = SHARNN(inner.config).state_dict()
    for name in sorted(weights.keys() | expected.keys()):
        shapes = [tuple(t[name].shape) if name in t else None for t in (weights, expected)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"the model does not have the tensors of its configuration: {name} has shape "
                f"{shapes[0]} instead of {shapes[1]}; remove parametrisations and pruning masks"
            )
    return weights


def canonical_copy(model: nn.Module) -> SHARNN:
    """Returns a copy whose results depend on the values of the weights and on nothing else.

    Products of a matrix that is stored by columns, or does not start at a multiple of 64 bytes,
    are rounded in another order. In the copy every weight is like one that was just loaded:
    float32, on the CPU, contiguous, aligned, and alone in its storage.

    Args:
        model: a model or a wrapper of one.

    Returns:
        The copy, in evaluation mode.

    Raises:
        InputError: see `named_weights`.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=8, boom_dim=32))
        >>> matrix = model.blocks[0].boom.expand.weight
        >>> matrix.data = matrix.data.t().contiguous().t()
        >>> [m.blocks[0].boom.expand.weight.is_contiguous() for m in (model, canonical_copy(model))]
        [False, True]
    """
    weights = {
        name: weight.to("cpu", torch.float32, copy=True, memory_format=torch.contiguous_format)
        for name, weight in named_weights(model).items()
    }
    with torch.device("meta"):
        copy = SHARNN(unwrap(model).config)
    copy.load_state_dict(weights, assign=True)
    return copy.eval()


def fingerprint(model: nn.Module) -> bytes:
    """Returns a hash that is equal for models with the same shape and weights.

    Returns:
        8 bytes of BLAKE2b over the configuration, without settings that matter in training only,
        and the float32 weights.

    Example:
        >>> len(fingerprint(SHARNN(ModelConfig(dim=8, boom_dim=32))))
        8
    """
    config = {
        name: value
        for name, value in unwrap(model).config.to_dict().items()
        if name not in TRAINING_ONLY and not (name in LATER_FIELDS and value == DEFAULTS[name])
    }

    hasher = hashlib.blake2b(json.dumps(config, sort_keys=True).encode(), digest_size=8)
    for name, weight in sorted(named_weights(model).items()):
        hasher.update(name.encode())
        hasher.update(weight.cpu().float().contiguous().numpy().astype("<f4").tobytes())
    return hasher.digest()


def require_fingerprint(model: nn.Module, expected: bytes) -> None:
    """Raises InputError if the fingerprint in an archive is not that of the model."""
    found = fingerprint(model)
    if found != expected:
        raise InputError(
            f"the archive was compressed with another model: its fingerprint is {expected.hex()}, "
            f"this model's is {found.hex()}"
        )


def _without_wrappers(name: str) -> str:
    """Returns a tensor's name without the parts that wrappers have added."""
    return ".".join(part for part in name.split(".") if part not in WRAPPED)
