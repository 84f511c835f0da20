"""One byte after another, fast: a model folded and packed for steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharnn.errors import InputError
from sharnn.inference.packed import pack
from sharnn.inference.ring import Ring
from sharnn.layers import LAYER_NORM_EPS
from sharnn.memory import Memory, State
from sharnn.model import SHARNN, Block, evaluating, in_float32

READ = 512  # bytes read at a time before the first step


class Stepper:
    """A model made ready for steps: the same numbers as `SHARNN.step`, up to rounding.

    What doesn't change from step to step is computed once: gains and biases of LayerNorms go into
    the matrices that follow them, two LayerNorms of one vector share their statistics, an LSTM's
    two matrices lie side by side, gates of queries and keys are one vector. Memories are rings of
    M rows: the newest row takes the oldest one's place, since the head knows no positions.

    A later change of the model's weights is not seen.

    Args:
        model: the model, in training or not: steps have no dropout.
        batch_size: streams that step side by side.
        weights: ``"float32"``, or ``"int8"``: a quarter of the memory traffic, for a small loss
            in bits per byte (see the chapter "Faster").
        memory: M, the most rows a query may see; None takes the model's.

    Raises:
        InputError: a setting is out of range, or the storage is missing on this device.

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
        weights: str = "float32",
        memory: int | None = None,
    ) -> None:
        self.limit = model.config.memory if memory is None else memory
        if self.limit < 1:
            raise InputError(f"memory must be at least 1 row, got {self.limit}")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self.model, self.batch_size = model, batch_size
        exact = in_float32(model)
        with torch.no_grad():
            self.embedding = exact.embedding.weight.detach()  # (vocab, dim)
            self.blocks = [
                _BlockStepper(block, batch_size, weights, self.limit)
                for block in exact.blocks
                if isinstance(block, Block)
            ]
            self.output = pack(self.embedding, exact.output_bias.detach(), "float32")

    @torch.no_grad()
    def step(self, x: Tensor) -> Tensor:
        """Reads one more symbol of every stream.

        Args:
            x: (batch,) integers below ``vocab_size``.

        Returns:
            Logits (batch, vocab_size) of the symbol after it, float32.

        Raises:
            InputError: another number of streams.
        """
        if x.shape != (self.batch_size,):
            raise InputError(
                f"one symbol for each of {self.batch_size} streams is needed, "
                f"got shape {tuple(x.shape)}"
            )
        h = F.embedding(x, self.embedding)  # (batch, dim)
        for block in self.blocks:
            h = block.step(h)
        return self.output(h)

    def read(self, prompts: Sequence[bytes]) -> Tensor:
        """Starts over and reads a text for each stream, many bytes at a time.

        Args:
            prompts: one for each stream, none empty; their lengths may differ.

        Returns:
            Logits (batch, vocab_size) of the symbols that follow them, float32.

        Raises:
            InputError: another number of texts, or an empty one.
        """
        if len(prompts) != self.batch_size or not all(prompts):
            raise InputError(f"{self.batch_size} texts are needed, none of them empty")
        with evaluating(self.model):
            ends = [self._read_one(prompt) for prompt in prompts]
        self.load_state([state for _, state in ends])
        return torch.cat([logits for logits, _ in ends])

    def _read_one(self, prompt: bytes) -> tuple[Tensor, State]:
        """Logits (1, vocab_size) after one text, and the state."""
        x = torch.tensor(list(prompt), device=self.embedding.device)[None]  # (1, time)
        first, *others = x.split(READ, dim=1)
        logits, state = self.model(first, memory=self.limit)
        for segment in others:
            logits, state = self.model(segment, state, memory=self.limit)
        return logits[:, -1].float(), state

    @torch.no_grad()
    def load_state(self, states: State | Sequence[State]) -> None:
        """Goes on from where `SHARNN.forward` or another stepper stopped.

        Args:
            states: one of all streams, or a sequence with the state of each stream; their
                memories may differ in length.

        Raises:
            InputError: they are of another number of streams.
        """
        streams = [states] if isinstance(states, State) else list(states)
        if sum(state.batch_size for state in streams) != self.batch_size:
            raise InputError(f"the states are not those of {self.batch_size} streams")
        for i, block in enumerate(self.blocks):
            block.hidden.copy_(torch.cat([state.lstm[i][0] for state in streams]))
            block.cell.copy_(torch.cat([state.lstm[i][1] for state in streams]))
            if block.head is not None:
                rows = [state.memory[i] for state in streams]
                block.head.ring.load([memory.rows for memory in rows if memory is not None])

    def state(self) -> State:
        """What `SHARNN.forward` needs to go on from here.

        Returns:
            The state, in storage of its own.

        Raises:
            InputError: the streams remember different numbers of rows.
        """
        lstm = tuple((block.hidden.clone(), block.cell.clone()) for block in self.blocks)
        heads = (block.head for block in self.blocks)
        return State(
            lstm,
            tuple(Memory(head.ring.in_order()) if head is not None else None for head in heads),
        )


class _BlockStepper:
    """One block, folded."""

    def __init__(self, block: Block, batch_size: int, weights: str, limit: int) -> None:
        w_input, w_hidden, b_input, b_hidden = (
            block.lstm.get_parameter(f"{name}_l0").detach()
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        self.dim = dim = w_input.shape[1]
        # W LN(h) + b = (W gain) n + (W bias + b), n = (h - mean) / deviation
        w_input, b_input = fold(block.start_norm, w_input, b_input)
        matrix = torch.cat([w_input, w_hidden], dim=1)  # (4 dim, 2 dim)
        i, f, g, o = torch.arange(4 * dim, device=matrix.device).chunk(4)
        order = torch.cat([i, f, o, g])  # what goes through a sigmoid lies together
        self.gates = pack(matrix[order], (b_input + b_hidden)[order], weights)
        # The input of that matrix: [n ; h].
        self.joined = matrix.new_zeros(batch_size, 2 * dim)
        self.hidden = self.joined[:, dim:]  # (batch, dim)
        self.cell = matrix.new_zeros(batch_size, dim)
        self.head = (
            _HeadStepper(block, batch_size, weights, limit) if block.head is not None else None
        )
        # Boom cuts off what is over a multiple of dim; and gelu(x) = silu(1.702 x) / 1.702.
        chunks = block.boom.expand.out_features // dim
        expand, offset = fold(
            block.boom_norm,
            block.boom.expand.weight.detach()[: chunks * dim],
            block.boom.expand.bias.detach()[: chunks * dim],
        )
        self.expand = pack(expand * 1.702, offset * 1.702, weights)
        self.gain, self.bias = affine(block.skip_norm)

    def step(self, h: Tensor) -> Tensor:
        """Takes (batch, dim) to (batch, dim)."""
        dim = self.dim
        self.joined[:, :dim] = normalise(h)
        # [i f o g] = W [n ; h] + b
        gates = self.gates(self.joined)  # (batch, 4 dim)
        i, f, o = gates[:, : 3 * dim].sigmoid_().chunk(3, dim=1)
        # c' = f c + i tanh(g);  h' = o tanh(c')
        self.cell.mul_(f).addcmul_(i, gates[:, 3 * dim :].tanh_())
        torch.mul(o, torch.tanh(self.cell), out=self.hidden)
        h = self.hidden if self.head is None else self.head.step(self.hidden)
        # h = LN_ff(h) + Boom(LN_xff(h)): both norms read the same h
        n = normalise(h)
        u = F.silu(self.expand(n)).unflatten(1, (-1, dim)).sum(1)  # (batch, dim)
        return torch.addcmul(self.bias, n, self.gain).add_(u, alpha=1 / 1.702)


class _HeadStepper:
    """One block's head, folded, with its ring of remembered rows."""

    def __init__(self, block: Block, batch_size: int, weights: str, limit: int) -> None:
        head = block.head
        assert head is not None
        self.ring = Ring(batch_size, limit, head.query.weight)
        # Rows: m = LN_mem(h). Skip and query: LN_mid(h), of the same h.
        self.row_gain, self.row_bias = affine(block.memory_norm)
        self.gain, self.bias = affine(block.middle_norm)
        matrix, offset = head.query.weight.detach(), head.query.bias.detach()
        self.query = pack(*fold(block.middle_norm, matrix, offset), weights)
        # q k' / sqrt(d): both gates and the root are one factor on LN_q's gain and bias.
        factor = torch.sigmoid(head.query_scale) * torch.sigmoid(head.key_scale)
        factor = factor.detach() / math.sqrt(head.dim)
        gain, bias = affine(head.query_norm)
        self.query_gain, self.query_bias = gain * factor, bias * factor
        self.value_gate = head.static_value_gate().detach()

    def step(self, h: Tensor) -> Tensor:
        """Takes (batch, dim) to (batch, dim), and remembers a row."""
        n = normalise(h)
        self.ring.write(torch.addcmul(self.row_bias, n, self.row_gain))
        q = F.layer_norm(
            self.query(n), n.shape[-1:], self.query_gain, self.query_bias, LAYER_NORM_EPS
        )
        # h = LN_mid(h) + v_gate (softmax(q m') m)
        skip = torch.addcmul(self.bias, n, self.gain)
        return skip.addcmul_(self.ring.attend(q), self.value_gate)


def normalise(h: Tensor) -> Tensor:
    """LayerNorm without gain and bias, over the last axis."""
    return F.layer_norm(h, h.shape[-1:], eps=LAYER_NORM_EPS)


def affine(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """A LayerNorm's gain and bias, (dim,) each."""
    return norm.weight.detach(), norm.bias.detach()


def fold(norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The linear layer that does to the normalised vector what norm and layer do to it.

    Args:
        norm: the LayerNorm before the layer.
        weight: (rows, dim).
        bias: (rows,).

    Returns:
        Weight (rows, dim) and bias (rows,).
    """
    gain, offset = affine(norm)
    return weight * gain, weight @ offset + bias
