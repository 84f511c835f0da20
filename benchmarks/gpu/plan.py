"""The sizes at which the steps run: the paper's on a GPU, tiny ones for a trial on any machine."""

from __future__ import annotations

import dataclasses
import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import sharnn
from sharnn.device import is_out_of_memory

TEXT = "sample"  # for steps that only need some text


@dataclass(frozen=True)
class Plan:
    """The settings that all steps share.

    Args:
        device: ``"cuda"`` or ``"cpu"``.
        tiny: True for a trial with tiny models, which says nothing about speed.
        data: training text of the paper's run: the name of a corpus or a file.
        earlier: the results file with the steps that have ended.
    """

    device: str
    tiny: bool
    data: str
    earlier: Path

    @property
    def config(self) -> sharnn.ModelConfig:
        """The model whose speed is measured."""
        if not self.tiny:
            return sharnn.ModelConfig.preset("paper")
        return sharnn.ModelConfig(dim=32, boom_dim=128, memory=96, layers=2, attention_layers=(0,))

    @property
    def recipe(self) -> sharnn.Recipe:
        """The recipe of that model, with segments of one length."""
        recipe = sharnn.Recipe.preset("paper")
        changes: dict[str, Any] = {"batch_size": 4, "segment_length": 32} if self.tiny else {}
        return dataclasses.replace(
            recipe, device=self.device, short_segments=0.0, segment_jitter=0.0, **changes
        )

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions in which the device trains; the first is the recipe's own."""
        if self.device == "cpu":
            return ("float32", "bfloat16")
        if torch.cuda.get_device_capability() < (8, 0):
            return ("float16", "float32")  # bfloat16 is emulated on a T4
        return ("float16", "bfloat16", "float32")

    @property
    def batches(self) -> tuple[int, ...]:
        """Numbers of streams."""
        return (2, 4) if self.tiny else (16, 32, 64, 128)

    @property
    def seconds(self) -> float:
        """Duration of one measurement."""
        return 0.02 if self.tiny else 0.5

    @property
    def repeats(self) -> int:
        """Number of measurements of each case."""
        return 2 if self.tiny else 5

    def corpus(self) -> sharnn.Corpus:
        """Returns a corpus for steps that only need some text."""
        return sharnn.load_corpus(TEXT, sample_size=40_000 if self.tiny else 8_000_000)

    def wait(self) -> None:
        """Waits until the device has done everything that was queued."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def release(self) -> None:
        """Returns the memory of deleted tensors to the device."""
        gc.collect()  # a model with a replaced method refers to itself
        if self.device == "cuda":
            torch.cuda.empty_cache()


def reason(error: Exception) -> str:
    """Returns in one line why a case could not be measured."""
    if is_out_of_memory(error):
        return "out of memory"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
