"""The page about the head's sharpness: one query's weights under other gains and gates."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sharnn.model import Block
from sharnn.web.arrays import pack, pack_rows
from sharnn.web.model_page import ModelPage

QUERY_GAIN = 4.0  # of the setting with W_q = I, if the model has none of its own
FAR = 16  # bytes back: a look that is not at the newest bytes


class SharpnessPage(ModelPage):
    """A page in which a reader changes the gains and gates of the head, and sees its weights.

    It shows the scores and weights of one query over the rows of a text. See
    `sharnn.web.model_page.ModelPage` for its arguments and methods.

    Example:
        >>> from sharnn import SHARNN, ModelConfig
        >>> page = SharpnessPage(SHARNN(ModelConfig(dim=16, boom_dim=64)), text="abc abc").page()
        >>> page[:15]
        '<!doctype html>'
    """

    kind = "sharpness"
    title = "Sharpness: gains and gates of the head, and its weights"
    scripts = ("chart", "head")
    needs_head = True
    notes = (
        "Gains: root mean square over the components. A slider scales all components of the gain "
        "and of the bias, and the gates' slider adds one number to what is inside both sigmas. "
        "With another query matrix all components are equal and there are no biases; the rows stay "
        "those of the model's LSTM.",
    )

    def _payload(self) -> dict[str, Any]:
        config = self.model.config
        return {
            **super()._payload(),
            "heads": [self._head(block) for block in self._blocks()],
            "limit": config.memory,
            "shifted": config.shifted_keys,
            "start_gain": config.query_gain or QUERY_GAIN,
        }

    def _blocks(self) -> list[Block]:
        """Returns the blocks that have a head."""
        return [self.model.blocks[number] for number in self.model.config.attention_layers]

    def _head(self, block: Block) -> dict[str, Any]:
        """Returns the parameters of a block's head, its matrix in 8 bits."""
        head = block.head
        assert head is not None
        vectors = {
            "query_bias": head.query.bias,
            "query_gain": head.query_norm.weight,
            "query_norm_bias": head.query_norm.bias,
            "query_scale": head.query_scale,
            "key_scale": head.key_scale,
            "memory_gain": block.memory_norm.weight,
            "memory_bias": block.memory_norm.bias,
            "middle_gain": block.middle_norm.weight,
            "middle_bias": block.middle_norm.bias,
        }
        matrix, matrix_scales = pack_rows(head.query.weight.detach().float().cpu())
        return {
            "vectors": {name: pack(v.detach(), "float32") for name, v in vectors.items()},
            "matrix": matrix,
            "matrix_scales": matrix_scales,
        }

    @torch.no_grad()
    def _example(self) -> dict[str, Any]:
        """Returns the prepared text, its rows, and a prediction that looks far back."""
        content = super()._example()
        outputs: list[Tensor] = []
        hooks = [
            block.memory_norm.register_forward_hook(
                lambda _module, inputs, _output: outputs.append(inputs[0])
            )
            for block in self._blocks()
        ]
        weights = self._attention()
        for hook in hooks:
            hook.remove()
        content["heads"] = []
        for output in outputs:
            rows = F.layer_norm(output[0].float(), output.shape[-1:], eps=1e-12).cpu()
            packed, scales = pack_rows(rows)
            content["heads"].append({"rows": packed, "row_scales": scales})
        content["initial_target"] = target_that_looks_far(weights[0])
        return content


def target_that_looks_far(weights: Tensor) -> int:
    """Returns the byte in the second half whose prediction has the largest weight far back.

    Args:
        weights: (time, time) attention weights; those of the last query are not used, since its
            byte is not in the text.

    Example:
        >>> weights = torch.eye(40)
        >>> weights[30, 5] = 0.5
        >>> target_that_looks_far(weights)
        31
    """
    time = len(weights)
    far = weights.tril(-FAR)[time // 2 : -1]  # (queries, time)
    if time < 4 or not bool(far.any()):
        return time - 1
    return time // 2 + int(far.amax(dim=1).argmax()) + 1
