"""The explorer without a kernel: a page in which a reader removes rows from the head's memory."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from sharnn.analysis.ablation import ablate, top_keys
from sharnn.analysis.byte_facts import earlier_ends
from sharnn.analysis.replay import Replay
from sharnn.analysis.trace import AttentionTrace, trace_attention
from sharnn.web.arrays import STEP, pack, quantise, unpack
from sharnn.web.model_page import ModelPage

COUNTS = (1, 4, 16, 64, 256)  # of the most attended rows
REPEAT = 8  # bytes that must occur again
DRAWS = 8  # of random rows
GUESSES = 3  # without some rows


class AblationPage(ModelPage):
    """A page in which a reader removes rows of the memory and sees what predictions lose.

    It needs no kernel. The reader's own text is read, the head's weights for any byte are shown,
    and the bits of this byte, or of its word, are computed without some rows: the most attended
    ones, the earlier occurrences of the same bytes, or those that the reader selects. See
    `sharnn.web.model_page.ModelPage` for its arguments and methods.

    Raises:
        InputError: the model has no head; or see `sharnn.web.model_page.ModelPage`.

    Example:
        >>> from sharnn import SHARNN, ModelConfig
        >>> page = AblationPage(SHARNN(ModelConfig(dim=16, boom_dim=64)), text="abc abc").page()
        >>> page[:15]
        '<!doctype html>'
    """

    kind = "ablation"
    package = "sharnn.analysis"
    title = "Explorer: remove rows from the memory"
    needs_head = True
    scripts: ClassVar[tuple[str, ...]] = ("tables", "removals")
    notes = (
        "Removed rows are left out of the softmax of the predicted byte's own query. Everything "
        "before it stays as it was.",
        f"Random rows: mean and standard deviation over {DRAWS} draws of the same number of rows.",
    )

    def _payload(self) -> dict[str, Any]:
        """Returns the data of the page, with the settings of its measurements."""
        return {**super()._payload(), "counts": COUNTS, "repeat": REPEAT, "draws": DRAWS}

    def _example(self) -> dict[str, Any]:
        """Returns the prepared text, its weights, and the effect of removing some rows."""
        size = len(self.text)
        memory = min(self.model.config.memory, size)
        # One byte at a time, as in the page, gives every query the whole memory.
        length = size if size <= memory else 1
        trace = trace_attention(
            self.model, self.text, start=1, targets=size, memory_limit=memory, segment_length=length
        )
        replay = Replay(self.model, trace)
        heads = [_prepared_head(replay, block) for block in self.model.config.attention_layers]
        most = unpack(heads[0]["extra"]).reshape(trace.num_targets, -1)[:, COUNTS.index(16)]
        return {
            **super()._example(),
            "initial_target": 1 + int(most.argmax()),
            "memory_limit": memory,
            "step": STEP,
            "heads": heads,
        }


def _prepared_head(replay: Replay, block: int) -> dict[str, Any]:
    """Returns the weights of a block's head, and the effect of removing some of its rows."""
    trace = replay.trace
    table = ablate(replay, block, COUNTS, DRAWS)
    repeated = repeated_keys(trace, REPEAT)
    drawn = [
        replay.bits_without(block, _random_keys(trace, repeated.sum(-1), seed)) - replay.bits
        for seed in range(DRAWS)
    ]
    random = torch.stack(drawn)  # (draws, targets)
    top = (top_keys(trace.weights[block], trace.num_visible, k) for k in COUNTS)
    without = [replay.probabilities_without(block, mask) for mask in (*top, repeated)]
    guesses = torch.stack(without, dim=1).topk(GUESSES)  # (targets, lines, guesses)

    def lines(of_counts: Tensor, of_repeated: Tensor) -> dict[str, str]:
        return pack(torch.cat([of_counts, of_repeated[:, None]], dim=1), "float32")

    codes, log2_largest = quantise(trace.weights[block])
    return {
        "codes": pack(codes, "uint8"),  # (targets, memory) by distance
        "log2_largest": log2_largest,
        "extra": lines(table.top, replay.bits_without(block, repeated) - replay.bits),
        "random": lines(table.random, random.mean(0)),
        "random_std": lines(table.random_std, random.std(0)),
        "line_guesses": pack(guesses.indices, "uint8"),
        "line_probabilities": pack(guesses.values, "float32"),
    }


def repeated_keys(trace: AttentionTrace, length: int) -> Tensor:
    """Returns a mask of the earlier occurrences of the bytes before each target.

    Args:
        trace: the trace.
        length: number of bytes before the target that must occur again. Each occurrence is
            removed with the byte that followed it.

    Returns:
        Booleans (targets, memory_limit); column j is the key j + 1 bytes before the target.

    Example:
        >>> from sharnn import SHARNN, ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64, memory=8))
        >>> trace = trace_attention(model, b"abcxabc", start=6, targets=1)
        >>> repeated_keys(trace, 2).int()
        tensor([[0, 0, 0, 1, 1, 1, 0, 0]], dtype=torch.int32)
    """
    earlier = earlier_ends(trace.text, length)  # (text,)
    mask = torch.zeros(trace.num_targets, trace.memory_limit, dtype=torch.bool)
    for i in range(trace.num_targets):
        target = trace.first + i
        end = int(earlier[target - 1])
        while end >= 0:
            nearest = target - (end + 1)  # distance of the byte that followed
            mask[i, nearest - 1 : nearest + length] = True
            end = int(earlier[end])
    visible = torch.arange(trace.memory_limit) < trace.num_visible[:, None]
    return mask & visible


def _random_keys(trace: AttentionTrace, counts: Tensor, seed: int) -> Tensor:
    """Returns a mask (targets, memory_limit) of a number of random visible keys for each target."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(trace.num_targets, trace.memory_limit, generator=generator)
    invisible = torch.arange(trace.memory_limit) >= trace.num_visible[:, None]
    rank = scores.masked_fill(invisible, 2).argsort().argsort()  # (targets, memory)
    return rank < counts[:, None]
