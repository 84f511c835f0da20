"""A model's steps in exact arithmetic: the same numbers on every machine."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from sharnn.attention import SingleHeadAttention
from sharnn.errors import InputError
from sharnn.exact.arithmetic import MAX_DIM, SIGMOID, Array, normalise, sigmoid
from sharnn.exact.products import IntegerMatrix
from sharnn.exact.ring import MAX_ROWS, IntegerRing
from sharnn.layers import GELU_SCALE
from sharnn.memory import State, require_state
from sharnn.model import SHARNN, Block, in_float32
from sharnn.weights import usable


class ExactStepper:
    """A model that reads one byte of each stream at a time, with the same results everywhere.

    Matrices, their inputs and the remembered rows are 8-bit integers with scales, whose products
    are summed without rounding; everything else is computed element by element (see
    `sharnn.exact.arithmetic`). Predictions are worse by less than 0.01 bits per byte than those of
    `sharnn.Stepper`.

    Changes to the model's weights after construction have no effect on the stepper.

    Args:
        model: the model, on the CPU.
        num_streams: number of streams.
        memory_limit: M, the maximum number of rows a query can attend to; None for the model's.

    Raises:
        InputError: a weight is NaN or Inf, or the model is too wide or its memory too long for
            exact sums.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64)).eval()
        >>> logits = ExactStepper(model).step(np.array([65]))
        >>> float(abs(logits - model.step(Tensor([65]).long())[0].detach().numpy()).max()) < 0.05
        True
    """

    def __init__(
        self, model: SHARNN, num_streams: int = 1, memory_limit: int | None = None
    ) -> None:
        model = in_float32(usable(model))
        limit = model.config.memory if memory_limit is None else memory_limit
        if model.config.dim > MAX_DIM or limit > MAX_ROWS:
            raise InputError(
                f"exact steps need a dim of at most {MAX_DIM} and a memory of at most {MAX_ROWS} "
                f"rows, got {model.config.dim} and {limit}"
            )
        self.config = model.config
        self.embedding = IntegerMatrix(model.embedding.weight)
        self.output_bias = to_array(model.output_bias)
        self.blocks = [ExactBlock(block, num_streams, limit) for block in model.blocks]

    def step(self, x: npt.NDArray[np.int64]) -> Array:
        """Reads one more symbol of each stream and predicts the next.

        Args:
            x: (streams,) integers below ``vocab_size``.

        Returns:
            Logits (streams, vocab_size).
        """
        return self._predict(self._read(x))

    def _read(self, x: npt.NDArray[np.int64]) -> Array:
        """Returns the output of the last block, (streams, dim), for symbols (streams,)."""
        h = self.embedding.rows(x)  # (streams, dim)
        for block in self.blocks:
            h = block.step(h)
        return h

    def _predict(self, h: Array) -> Array:
        """Maps (streams, dim) to logits (streams, vocab_size)."""
        # logits = E h + b
        return self.embedding(h) + self.output_bias

    def load_state(self, state: State) -> None:
        """Continues all streams from one state of `SHARNN.forward`.

        Args:
            state: of one stream; its memory is rounded to 8 bits.

        Raises:
            InputError: the state has several streams or belongs to another model.
        """
        require_state(state, self.config)
        if state.batch_size != 1:
            raise InputError(f"the state must have one stream, not {state.batch_size}")
        for block, (hidden, cell), memory in zip(
            self.blocks, state.lstm, state.memory, strict=True
        ):
            block.hidden[:], block.cell[:] = to_array(hidden), to_array(cell)
            if block.head is not None and memory is not None:
                block.head.ring.load(to_array(memory.rows[0]))


class BlockStep(NamedTuple):
    """What a block computes in one step and a backward pass needs, (streams, ...) each."""

    h: Array  # the input
    hidden: Array  # the LSTM's state before the step
    cell: Array
    gates: Array  # sigma(i), sigma(f), sigma(2 g) and sigma(o)
    new_cell: Array
    before_head: Array
    before_boom: Array
    u: Array  # Boom's units before GELU


class ExactBlock:
    """One block and its LSTM state.

    Args:
        block: the block.
        num_streams: number of streams.
        limit: M, the maximum number of rows a query can attend to.

    Attributes:
        record: a list to which each step is appended; None to record nothing.
    """

    def __init__(self, block: Block, num_streams: int, limit: int) -> None:
        self.record: list[BlockStep] | None = None
        matrices = matrices_of(block)
        self.start = Affine(block.start_norm)
        self.input, self.recurrent, self.expand = map(IntegerMatrix, matrices.values())
        b_input, b_hidden = (block.lstm.get_parameter(f"bias_{name}_l0") for name in ("ih", "hh"))
        self.gates_bias = to_array(b_input) + to_array(b_hidden)
        self.dim = dim = block.lstm.hidden_size
        self.hidden, self.cell = np.zeros((2, num_streams, dim))
        self.lstm_skip = None if block.lstm_skip is None else to_array(block.lstm_skip)
        self.head = None
        if block.head is not None:
            self.head = ExactHead(block, block.head, num_streams, limit)
        self.skip_norm, self.boom_norm = Affine(block.skip_norm), Affine(block.boom_norm)
        self.chunks = len(matrices["expand"]) // dim
        self.expand_bias = to_array(block.boom.expand.bias[: self.chunks * dim])

    def step(self, h: Array) -> Array:
        """Maps (streams, dim) to (streams, dim) and updates the LSTM state."""
        dim = self.dim
        before = h, self.hidden, self.cell
        start = self.start(normalise(h))
        # [i f g o] = W LN(h) + U h + b
        gates = self.input(start) + self.recurrent(self.hidden) + self.gates_bias
        # tanh(g) = 2 sigma(2 g) - 1
        gates[:, 2 * dim : 3 * dim] *= 2
        gates = SIGMOID(gates)  # (streams, 4 dim)
        i, f, g, o = (gates[:, k * dim : (k + 1) * dim] for k in range(4))
        # c' = f c + i tanh(g);  h' = o tanh(c')
        self.cell = f * self.cell + i * (2 * g - 1)
        self.hidden = h = o * (2 * SIGMOID(2 * self.cell) - 1)
        if self.lstm_skip is not None:
            h = h + self.lstm_skip * start
        before_head = h
        if self.head is not None:
            h = self.head.step(h)
        # h = LN_ff(h) + Boom(LN_xff(h)): both norms read the same h
        n = normalise(h)
        u = self.expand(self.boom_norm(n)) + self.expand_bias
        if self.record is not None:
            self.record.append(BlockStep(*before, gates, self.cell, before_head, h, u))
        u = u * SIGMOID(GELU_SCALE * u)
        h = self.skip_norm(n)
        for chunk in range(self.chunks):
            h += u[:, chunk * dim : (chunk + 1) * dim]
        return h


class ExactHead:
    """One block's head and its memory."""

    def __init__(
        self, block: Block, head: SingleHeadAttention, num_streams: int, limit: int
    ) -> None:
        self.ring = IntegerRing(num_streams, limit, head.dim, shifted_keys=head.shifted_keys)
        self.memory_norm, self.middle_norm = Affine(block.memory_norm), Affine(block.middle_norm)
        self.query, self.query_bias = IntegerMatrix(head.query.weight), to_array(head.query.bias)
        self.query_norm = Affine(head.query_norm)
        # q k' / sqrt(d): both gates and the root become one factor of the query.
        gate = sigmoid(to_array(head.query_scale)) * sigmoid(to_array(head.key_scale))
        self.query_factor = gate / math.sqrt(head.dim)
        self.value_gate = exact_value_gate(head)

    def step(self, h: Array) -> Array:
        """Maps (streams, dim) to (streams, dim) and appends a row to the memory."""
        n = normalise(h)
        self.ring.write(self.memory_norm(n))
        h = self.middle_norm(n)
        q = self.query_norm(normalise(self.query(h) + self.query_bias)) * self.query_factor
        # h = LN_mid(h) + v_gate (softmax(q k') m)
        return h + self.value_gate * self.ring.attend(q)


class Affine:
    """The gain and the bias of a LayerNorm."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.gain, self.bias = to_array(norm.weight), to_array(norm.bias)

    def __call__(self, n: Array) -> Array:
        """Maps (streams, dim) to (streams, dim)."""
        return n * self.gain + self.bias


def matrices_of(block: Block) -> dict[str, Tensor]:
    """Returns a block's matrices except that of its head, by the names in `ExactBlock`."""
    w_input, w_hidden = (block.lstm.get_parameter(f"weight_{name}_l0") for name in ("ih", "hh"))
    dim, expand = block.lstm.hidden_size, block.boom.expand.weight
    # Boom ignores units beyond the last whole chunk.
    return {
        "input": w_input,
        "recurrent": w_hidden,
        "expand": expand[: len(expand) // dim * dim],
    }


def exact_value_gate(head: SingleHeadAttention) -> Array:
    """Returns the gate on the values, (dim,), rounded to float32 as in a collapsed head."""
    if head.collapsed:
        return to_array(head.value_gate)
    # (c, f) = W_v sigma(v_s) + b_v;  v_gate = sigma(f) tanh(c)  (paper: over-parameterisation)
    scale = sigmoid(to_array(head.value_scale))
    weight, bias = to_array(head.value_shape.weight), to_array(head.value_shape.bias)
    # fsum rounds only once, so that the order of its terms does not matter.
    shape = np.array([math.fsum(row * scale) for row in weight]) + bias
    c, f = shape[: head.dim], shape[head.dim :]
    gate = sigmoid(f) * (2 * sigmoid(2 * c) - 1)
    return gate.astype(np.float32).astype(np.float64)


def to_array(weight: Tensor) -> Array:
    """Returns a tensor's values as float64."""
    return np.asarray(weight.detach().double().cpu().numpy())
