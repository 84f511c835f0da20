"""A training step is queued on a device as a whole: the host waits once, for the loss.

The steps run on the meta device, which has shapes and no numbers. Whatever needs a number there
raises an error, as it would make the host wait for a GPU.
"""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sharnn import SHARNN
from sharnn.layers import LSTM
from sharnn.optim import make_optimizer
from sharnn.trainer import Trainer
from small import ALL_OPTIONS, small_config, small_recipe

# Operations that only describe a tensor anew, and start no kernel.
VIEWS = ("view", "t.default", "transpose", "slice.", "select", "expand", "unsqueeze", "detach")
VIEWS += ("unbind", "split", "empty", "alias", "profiler", "lift_fresh", "permute", "squeeze")


class Kernels(TorchDispatchMode):
    """Counts the operations that start a kernel."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        if not any(word in name for word in VIEWS):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class OneKernel(torch.autograd.Function):
    """In place of an LSTM, which is a few kernels on a GPU and thousands on the meta device."""

    @staticmethod
    def forward(ctx, x, *weights):
        ctx.save_for_backward(x, *weights)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        _, *weights = ctx.saved_tensors
        return gradient, *(torch.empty_like(weight) for weight in weights)


def lstm(self, x, state):
    hidden = OneKernel.apply(x, *self.parameters())
    return hidden, (hidden[:, -1], hidden[:, -1])


@pytest.fixture
def queued_trainer(corpus, monkeypatch):
    """Returns a function that makes a trainer on the meta device, whose last wait is left out."""
    monkeypatch.setattr("sharnn.model.to_autocast_dtype", lambda x: x)
    monkeypatch.setattr(LSTM, "forward", lstm)

    def make(optimizer="lamb", **changes):
        recipe = small_recipe(
            batch_size=4,
            segment_length=16,
            segment_jitter=0.0,
            short_segments=0.0,
            optimizer=optimizer,
            device="cpu",
        )
        trainer = Trainer(SHARNN(small_config(**{"dropout": 0.1, **changes})), corpus, recipe)
        trainer.device = torch.device("meta")
        trainer.dtype = torch.float32
        trainer.model.to("meta")
        trainer.optimizer = make_optimizer(trainer.model, recipe)
        monkeypatch.setattr(trainer, "_reduce", lambda *results: (1.0, 1.0, 0.0, 0.0, False))
        return trainer

    return make


@pytest.mark.parametrize("optimizer", ["lamb", "muon"])  # AdamW is torch's own
@pytest.mark.parametrize(
    "shape",
    [{}, ALL_OPTIONS, {"memory_window": "sliding"}, {"attention_layers": (0, 1, 2)}],
    ids=str,
)
def test_the_host_never_waits_inside_a_step(queued_trainer, optimizer, shape):
    trainer = queued_trainer(optimizer, **shape)
    for _ in range(4):  # the memory of 24 rows overflows
        trainer.step()


@pytest.mark.parametrize(
    "read",
    [
        lambda h: h.sum().item(),
        lambda h: h.cpu(),
        lambda h: h[h > 0],
        lambda h: h.nonzero(),
        lambda h: bool((h > 0).any()),
    ],
)
def test_a_wait_inside_a_step_is_noticed(queued_trainer, read):
    trainer = queued_trainer()

    def wait(module, inputs, output):
        read(output)

    trainer.model.blocks[1].boom.register_forward_hook(wait)
    with pytest.raises((RuntimeError, NotImplementedError), match=r"(?i)meta"):
        trainer.step()


def test_the_number_of_kernels_depends_on_the_number_of_layers_alone(queued_trainer):
    counts = {}
    for name, shape in {
        "one head": {},
        "wider": {"dim": 64, "boom_dim": 256},
        "another block": {"layers": 4},
        "another head": {"attention_layers": (0, 1)},
    }.items():
        trainer = queued_trainer(**{"boom_dim": 64, **shape})
        trainer.step()
        trainer.step()
        with Kernels() as kernels:
            trainer.step()
        counts[name] = sum(kernels.counts.values())
    assert counts["wider"] == counts["one head"]
    assert counts["another block"] - counts["one head"] <= 100
    assert counts["another head"] - counts["one head"] <= 160
    assert counts["one head"] <= 520
