"""A model prepared for fast steps, one symbol at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharnn.attention import SingleHeadAttention
from sharnn.errors import InputError
from sharnn.inference.packed import pack
from sharnn.inference.ring import RingBuffer
from sharnn.layers import GELU_SCALE, LAYER_NORM_EPS
from sharnn.memory import Memory, State, require_state
from sharnn.model import SHARNN, Block, evaluating, in_float32
from sharnn.weights import usable

SEGMENT_LENGTH = 512  # bytes of a prompt that are read at a time


class Stepper:
    """A model prepared for steps: the same numbers as `SHARNN.step`, up to rounding.

    Everything that does not change between steps is computed once. The gain and bias of a
    LayerNorm are folded into the matrix that follows it, two LayerNorms of the same vector share
    their mean and deviation, the two matrices of an LSTM are concatenated, and the gates of queries
    and keys become one vector. Each memory is a ring buffer of M rows: a new row overwrites the
    oldest one.

    Changes to the model's weights after construction have no effect on the stepper.

    Args:
        model: the model; steps have no dropout, even if it is in training mode.
        batch_size: number of streams.
        storage: ``"float32"``, or ``"int8"``, which reads a quarter of the bytes for a small loss
            in bits per byte (see the chapter "One byte at a time").
        memory_limit: M, the maximum number of rows a query can attend to; None for the model's.

    Raises:
        InputError: a setting is out of range, ``storage`` is not available on this device, or a
            weight is NaN or Inf.

    Source: paper, model architecture; the folding is exact algebra.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64)).eval()
        >>> stepper = Stepper(model)
        >>> logits = stepper.step(torch.tensor([65]))
        >>> torch.allclose(logits, model.step(torch.tensor([65]))[0], atol=1e-5)
        True
    """

    def __init__(
        self,
        model: SHARNN,
        batch_size: int = 1,
        storage: str = "float32",
        memory_limit: int | None = None,
    ) -> None:
        model = usable(model)
        self.memory_limit = model.config.memory if memory_limit is None else memory_limit
        if self.memory_limit < 1:
            raise InputError(f"memory_limit must be at least 1 row, got {self.memory_limit}")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self.model, self.batch_size = model, batch_size
        exact = in_float32(model)
        with torch.no_grad():
            self.embedding = exact.embedding.weight.detach()  # (vocab_size, dim)
            self.blocks = [
                _BlockStepper(block, batch_size, storage, self.memory_limit)
                for block in exact.blocks
            ]
            # Rounding errors of the output layer would go straight into the prediction.
            self.output = pack(self.embedding, exact.output_bias.detach(), "float32")

    @torch.no_grad()
    def step(self, x: Tensor) -> Tensor:
        """Reads one more symbol of each stream and predicts the next.

        Args:
            x: (batch,) integers below ``vocab_size``.

        Returns:
            Logits (batch, vocab_size), float32.

        Raises:
            InputError: ``x`` has the wrong shape.
        """
        if x.shape != (self.batch_size,):
            raise InputError(
                f"step takes one symbol per stream, shape ({self.batch_size},), "
                f"got {tuple(x.shape)}"
            )
        h = F.embedding(x, self.embedding)  # (batch, dim)
        for block in self.blocks:
            h = block.step(h)
        return self.output(h)

    def read(self, prompts: Sequence[bytes]) -> Tensor:
        """Resets all streams and reads a prompt into each, many bytes at a time.

        Args:
            prompts: one per stream, not empty; their lengths may differ.

        Returns:
            Logits (batch, vocab_size) of the symbols that follow the prompts, float32.

        Raises:
            InputError: there are too many or too few prompts, or one is empty.
        """
        if len(prompts) != self.batch_size or not all(prompts):
            raise InputError(
                f"read takes one prompt per stream, {self.batch_size} in total, none of them empty"
            )
        with evaluating(self.model):
            results = [self._read_prompt(prompt) for prompt in prompts]
        self.load_state([state for _, state in results])
        return torch.cat([logits for logits, _ in results])

    def _read_prompt(self, prompt: bytes) -> tuple[Tensor, State]:
        """Returns the logits (1, vocab_size) and the state after one prompt."""
        x = torch.tensor(list(prompt), device=self.embedding.device)[None]  # (1, time)
        first, *others = x.split(SEGMENT_LENGTH, dim=1)
        logits, state = self.model(first, memory_limit=self.memory_limit)
        for segment in others:
            logits, state = self.model(segment, state, memory_limit=self.memory_limit)
        return logits[:, -1].float(), state

    @torch.no_grad()
    def load_state(self, states: State | Sequence[State]) -> None:
        """Continues from states of `SHARNN.forward` or of another stepper.

        Args:
            states: one state of all streams, or a sequence of states that together cover all
                streams; their memories may differ in length.

        Raises:
            InputError: the states do not have ``batch_size`` streams in total, or belong to
                another model.
        """
        parts = [states] if isinstance(states, State) else list(states)
        for state in parts:
            require_state(state, self.model.config)
        num_streams = sum(state.batch_size for state in parts)
        if num_streams != self.batch_size:
            raise InputError(
                f"the states have {num_streams} streams in total, the stepper {self.batch_size}"
            )
        for i, block in enumerate(self.blocks):
            block.hidden.copy_(torch.cat([state.lstm[i][0] for state in parts]))
            block.cell.copy_(torch.cat([state.lstm[i][1] for state in parts]))
            if block.head is not None:
                memories = [state.memory[i] for state in parts]
                block.head.ring.load([memory.rows for memory in memories if memory is not None])

    def state(self) -> State:
        """Returns the current state for `SHARNN.forward`, as a copy.

        Raises:
            InputError: the streams remember different numbers of rows.
        """
        heads = [block.head for block in self.blocks]
        return State(
            tuple((block.hidden.clone(), block.cell.clone()) for block in self.blocks),
            tuple(Memory(head.ring.in_order()) if head is not None else None for head in heads),
        )


class _BlockStepper:
    """One block with its LayerNorms folded, and its LSTM state."""

    def __init__(self, block: Block, batch_size: int, storage: str, memory_limit: int) -> None:
        w_input, w_hidden, b_input, b_hidden = (
            block.lstm.get_parameter(f"{name}_l0").detach()
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        self.dim = dim = w_input.shape[1]
        # W LN(h) + b = (W gain) n + (W bias + b), n = (h - mean) / deviation
        w_input, b_input = fold(block.start_norm, w_input, b_input)
        matrix = torch.cat([w_input, w_hidden], dim=1)  # (4 dim, 2 dim)
        i, f, g, o = torch.arange(4 * dim, device=matrix.device).chunk(4)
        order = torch.cat([i, f, o, g])  # one call computes the sigmoids of i, f and o
        self.gates = pack(matrix[order], (b_input + b_hidden)[order], storage)
        self.gates_input = matrix.new_zeros(batch_size, 2 * dim)  # [n ; h]
        self.hidden = self.gates_input[:, dim:]  # (batch, dim), a view
        self.cell = matrix.new_zeros(batch_size, dim)
        self.lstm_skip: tuple[Tensor, Tensor] | None = None
        if block.lstm_skip is not None:
            # g LN_start(h) = (g gain) n + g bias
            gain, bias = gain_and_bias(block.start_norm)
            skip = block.lstm_skip.detach()
            self.lstm_skip = skip * gain, skip * bias
        self.head: _HeadStepper | None = None
        if block.head is not None:
            self.head = _HeadStepper(block, block.head, batch_size, storage, memory_limit)
        # Boom ignores units beyond the last whole chunk; gelu(x) = silu(1.702 x) / 1.702.
        used = block.boom.expand.out_features // dim * dim
        expand, offset = fold(
            block.boom_norm,
            block.boom.expand.weight.detach()[:used],
            block.boom.expand.bias.detach()[:used],
        )
        self.expand = pack(expand * GELU_SCALE, offset * GELU_SCALE, storage)
        self.gain, self.bias = gain_and_bias(block.skip_norm)

    def step(self, h: Tensor) -> Tensor:
        """Maps (batch, dim) to (batch, dim) and updates the LSTM state."""
        dim = self.dim
        n = normalise(h)
        self.gates_input[:, :dim] = n
        # [i f o g] = W [n ; h] + b
        gates = self.gates(self.gates_input)  # (batch, 4 dim)
        i, f, o = gates[:, : 3 * dim].sigmoid_().chunk(3, dim=1)
        # c' = f c + i tanh(g);  h' = o tanh(c')
        self.cell.mul_(f).addcmul_(i, gates[:, 3 * dim :].tanh_())
        torch.mul(o, torch.tanh(self.cell), out=self.hidden)
        h = self.hidden
        if self.lstm_skip is not None:
            gain, bias = self.lstm_skip
            h = torch.addcmul(h, n, gain).add_(bias)
        if self.head is not None:
            h = self.head.step(h)
        # h = LN_ff(h) + Boom(LN_xff(h)): both norms read the same h
        n = normalise(h)
        u = F.silu(self.expand(n)).unflatten(1, (-1, dim)).sum(1)  # (batch, dim)
        return torch.addcmul(self.bias, n, self.gain).add_(u, alpha=1 / GELU_SCALE)


class _HeadStepper:
    """One block's head with its LayerNorms folded, and its ring buffer of remembered rows."""

    def __init__(
        self,
        block: Block,
        head: SingleHeadAttention,
        batch_size: int,
        storage: str,
        memory_limit: int,
    ) -> None:
        self.ring = RingBuffer(batch_size, memory_limit, head.query.weight, head.shifted_keys)
        # The new row is m = LN_mem(h); skip connection and query read LN_mid(h), of the same h.
        self.row_gain, self.row_bias = gain_and_bias(block.memory_norm)
        self.gain, self.bias = gain_and_bias(block.middle_norm)
        matrix, offset = head.query.weight.detach(), head.query.bias.detach()
        self.query = pack(*fold(block.middle_norm, matrix, offset), storage)
        # q k' / sqrt(d): both gates and the root become one factor of LN_q's gain and bias.
        factor = torch.sigmoid(head.query_scale) * torch.sigmoid(head.key_scale)
        factor = factor.detach() / math.sqrt(head.dim)
        gain, bias = gain_and_bias(head.query_norm)
        self.query_gain, self.query_bias = gain * factor, bias * factor
        self.value_gate = head.static_value_gate().detach()

    def step(self, h: Tensor) -> Tensor:
        """Maps (batch, dim) to (batch, dim) and appends a row to the memory."""
        n = normalise(h)
        self.ring.write(torch.addcmul(self.row_bias, n, self.row_gain))
        q = F.layer_norm(
            self.query(n), n.shape[-1:], self.query_gain, self.query_bias, LAYER_NORM_EPS
        )
        # h = LN_mid(h) + v_gate (softmax(q k') m)
        skip = torch.addcmul(self.bias, n, self.gain)
        return skip.addcmul_(self.ring.attend(q), self.value_gate)


def normalise(h: Tensor) -> Tensor:
    """Applies LayerNorm without gain and bias over the last axis."""
    return F.layer_norm(h, h.shape[-1:], eps=LAYER_NORM_EPS)


def gain_and_bias(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Returns the gain and the bias of a LayerNorm, (dim,) each."""
    return norm.weight.detach(), norm.bias.detach()


def fold(norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Folds a LayerNorm's gain and bias into the linear layer that follows it.

    Args:
        norm: the LayerNorm.
        weight: (rows, dim) of the linear layer.
        bias: (rows,) of the linear layer.

    Returns:
        Weight (rows, dim) and bias (rows,) of a linear layer that, applied to `normalise` of a
        vector, gives the same output as the norm and the given layer applied to the vector.
    """
    gain, offset = gain_and_bias(norm)
    return weight * gain, weight @ offset + bias
