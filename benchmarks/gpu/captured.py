"""A stepper whose step is one captured graph, so that the host starts one kernel list per byte."""

from __future__ import annotations

import torch
from torch import Tensor

import sharnn
from sharnn.inference.ring import RingBuffer


class FixedRing:
    """A full ring buffer that keeps its position on the device.

    A captured graph repeats the same kernels on the same addresses, so the position of the next
    row must be a number that the graph reads, not one that the host knows.

    Args:
        ring: a ring buffer whose streams all have M rows; its storage is shared.
    """

    def __init__(self, ring: RingBuffer) -> None:
        self.rows, self.limit, self.shifted_keys = ring.rows, ring.limit, ring.shifted_keys
        newest = (ring.written[0] - 1) % self.limit
        self.newest = torch.tensor([newest], device=ring.rows.device)

    def write(self, rows: Tensor) -> None:
        """Replaces the oldest row of each stream by one of ``rows`` (batch, dim)."""
        self.newest.add_(1).remainder_(self.limit)
        self.rows.index_copy_(1, self.newest, rows[:, None])

    def attend(self, q: Tensor) -> Tensor:
        """Returns softmax(q k') m (batch, dim); see `sharnn.inference.ring.RingBuffer.attend`."""
        scores = torch.bmm(self.rows, q[:, :, None])[..., 0]  # (batch, M)
        if self.shifted_keys:
            scores = scores.roll(1, dims=1)
            scores.index_fill_(1, (self.newest + 1) % self.limit, 0.0)  # the oldest row has no key
        weights = torch.softmax(scores, dim=1)
        return torch.bmm(weights[:, None], self.rows)[:, 0]


class CapturedStepper:
    """Steps with a full memory; on a GPU as one captured graph.

    Args:
        stepper: a stepper that remembers M rows. The new one takes over its memory and its state.

    Raises:
        sharnn.InputError: a memory is not full.
    """

    def __init__(self, stepper: sharnn.Stepper) -> None:
        self.stepper = stepper
        for block in stepper.blocks:
            if block.head is not None:
                ring = block.head.ring
                if min(ring.written) < ring.limit:
                    raise sharnn.InputError("a step can be captured only once the memory is full")
                block.head.ring = FixedRing(ring)  # type: ignore[assignment]
        device = stepper.embedding.device
        self.symbols = torch.zeros(stepper.batch_size, dtype=torch.int64, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            self._capture()

    def step(self, x: Tensor) -> Tensor:
        """Reads one more symbol of each stream and predicts the next.

        Args:
            x: (batch,) integers.

        Returns:
            Logits (batch, vocab_size). The next step overwrites them.
        """
        if self.graph is None:
            return self.stepper.step(x)
        self.symbols.copy_(x)
        self.graph.replay()
        return self.logits

    def _capture(self) -> None:
        """Records the kernels of a step; the state is as it was before."""
        before = [tensor.clone() for tensor in self._state()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries allocate their workspaces in the first steps
            for _ in range(3):
                self.stepper.step(self.symbols)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits = self.stepper.step(self.symbols)
        for tensor, saved in zip(self._state(), before, strict=True):
            tensor.copy_(saved)

    def _state(self) -> list[Tensor]:
        """Returns the tensors that a step changes."""
        found = []
        for block in self.stepper.blocks:
            found += [block.hidden, block.cell]
            if block.head is not None:
                ring = block.head.ring
                assert isinstance(ring, FixedRing)
                found += [ring.rows, ring.newest]
        return found
