"""Converts the parameter names of the author's code to sharnn's."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from sharnn.config import ModelConfig
from sharnn.errors import InputError

_BLOCK_NAMES = {
    "lnstart": "start_norm",
    "lnmem": "memory_norm",
    "lnmid": "middle_norm",
    "lnff": "skip_norm",
    "lnxff": "boom_norm",
    "rnn": "lstm",
    "ff.linear1": "boom.expand",
    "attn.q": "head.query",
    "attn.qln": "head.query_norm",
    "attn.vq.l1": "head.value_shape",
    "attn.qs": "head.query_scale",
    "attn.ks": "head.key_scale",
}
_HEAD_VECTORS = (".attn.qs", ".attn.ks", ".attn.vs")  # (1, 1, dim) in his code, (dim,) in ours
_UNUSED = ("lnout", "attn.qkvs", "attn.r_gate")
_UNUSED_WITHOUT_HEAD = ("lnmem", "lnmid")
_WRAPPERS = ("_orig_mod", "module")  # parts of names: torch.compile, DataParallel
# Names of parameters that variants of the model have, and what they belong to.
_VARIANTS = (
    (r"in_proj_(weight|bias)$|\bmha\.", "multi-head attention"),
    (r"\battn\.[kvr]\.", "projected keys, values or outputs of the head"),
    (r"\bff\.linear2\.", "a feed-forward layer of two matrices instead of Boom"),
    (r"\brnn\..*(_l[1-9]|_reverse)", "LSTMs of several layers or directions"),
    (r"\bpos(ition)?_emb", "position embeddings"),
)
_PARTS = {"rnn": "LSTM", "ff.linear1": "Boom layer"}  # without them it is another model


def from_reference(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the parameters of the author's code to sharnn's names.

    Parameters that his model creates but never uses are left out: a sixth LayerNorm, two vectors
    of the head, and the LayerNorms of the head in blocks without one. A collapsed head (without
    its matrix W_v) stays collapsed. The prefixes of `torch.compile`, DataParallel and
    ``model.`` are removed.

    Args:
        state_dict: tensors by the author's names.

    Returns:
        Tensors by sharnn's names, for ``load_state_dict(..., strict=True)`` of a `SHARNN` of the
        same shape (with ``collapsed=True`` if the heads are collapsed).

    Raises:
        InputError: a name is unknown or missing, perhaps because the parameters are those of a
            variant of the model; or the output layer's weight differs from the embedding's.

    Source: the names are those of github.com/Smerity/sha-rnn.

    Example:
        >>> theirs = {"encoder.weight": torch.ones(3, 2), "decoder.bias": torch.ones(3)}
        >>> sorted(from_reference(theirs))
        ['embedding.weight', 'output_bias']
    """
    state_dict = _without_prefixes(state_dict)
    for name in ("encoder.weight", "decoder.bias"):
        if name not in state_dict:
            raise InputError(f"not the author's parameters: {name!r} is missing")
    _require_no_variant(state_dict)
    tied = state_dict.get("decoder.weight", state_dict["encoder.weight"])
    if not torch.equal(tied, state_dict["encoder.weight"]):
        raise InputError("decoder.weight differs from encoder.weight: the model ties them")
    ours = {
        "embedding.weight": state_dict["encoder.weight"],
        "output_bias": state_dict["decoder.bias"],
    }
    for name, tensor in state_dict.items():
        if name in ("encoder.weight", "decoder.weight", "decoder.bias"):
            continue
        renamed = _rename(name, state_dict)
        if renamed is not None:
            ours[renamed] = tensor.reshape(-1) if name.endswith(_HEAD_VECTORS) else tensor
    return ours


def _without_prefixes(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Removes what wrappers have added to the names, and a common prefix ``model.``."""
    renamed = {
        ".".join(part for part in name.split(".") if part not in _WRAPPERS): tensor
        for name, tensor in state_dict.items()
    }
    if renamed and all(name.startswith("model.") for name in renamed):
        renamed = {name.removeprefix("model."): tensor for name, tensor in renamed.items()}
    if len(renamed) < len(state_dict):
        raise InputError("some parameters are there twice, with and without a wrapper's prefix")
    return renamed


def _require_no_variant(state_dict: Mapping[str, Tensor]) -> None:
    """Raises an error if the names are those of another model than the paper's."""
    for pattern, description in _VARIANTS:
        for name in state_dict:
            if re.search(pattern, name):
                raise InputError(
                    f"a variant of the model with {description} ({name!r}), which can't be "
                    "converted"
                )
    blocks = [name for name in state_dict if re.match(r"blocks\.\d+\.", name)]
    for part, description in _PARTS.items():
        if blocks and not any(f".{part}." in name for name in blocks):
            raise InputError(
                f"a variant of the model whose blocks have no {description}, which can't be "
                "converted"
            )


def _rename(name: str, state_dict: Mapping[str, Tensor]) -> str | None:
    """Returns sharnn's name of a parameter of a block; None if the parameter is never used."""
    parts = name.split(".")
    if len(parts) < 3 or parts[0] != "blocks" or not parts[1].isdigit():
        raise InputError(f"unknown parameter {name!r}: not one of the author's names")
    block, rest = f"blocks.{parts[1]}", ".".join(parts[2:])
    has_head = f"{block}.attn.q.weight" in state_dict
    if rest.startswith(_UNUSED) or (not has_head and rest.startswith(_UNUSED_WITHOUT_HEAD)):
        return None
    if rest == "attn.vs":
        collapsed = f"{block}.attn.vq.l1.weight" not in state_dict
        return f"{block}.head.{'value_gate' if collapsed else 'value_scale'}"
    for theirs, ours in _BLOCK_NAMES.items():
        if rest == theirs or rest.rpartition(".")[0] == theirs:
            return f"{block}.{ours}{rest.removeprefix(theirs)}"
    raise InputError(f"unknown parameter {name!r}: not one of the author's names")


def author_parameter_count(config: ModelConfig) -> int:
    """Returns the number of parameters of the author's model of this shape.

    It includes the parameters that his model creates but never uses (see `from_reference`). The
    paper's table reports this number.

    Source: paper, table of results: 51 M, 52 M and 54 M, heads collapsed.

    Example:
        >>> author_parameter_count(ModelConfig(vocab_size=205, attention_layers=()))
        50640077
    """
    d, heads = config.dim, config.head_count
    block = 8 * d * d + 8 * d + config.boom_dim * (d + 1) + 6 * 2 * d  # LSTM, Boom, 6 LayerNorms
    # W_q and LN_q; q_s, k_s, v_s; and four unused vectors
    head = d * d + d + 2 * d + 3 * d + 4 * d
    matrix = 0 if config.collapsed else 2 * d * d + 2 * d  # W_v
    return config.vocab_size * (d + 1) + config.layers * block + heads * (head + matrix)
