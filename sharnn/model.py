"""SHA-RNN: an embedding, blocks of LSTM, head and Boom, and an output tied to the embedding."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharnn.attention import SingleHeadAttention, visible
from sharnn.config import ModelConfig
from sharnn.errors import InputError
from sharnn.layers import LSTM, Boom, Dropout, layer_norm
from sharnn.memory import Memory, State
from sharnn.precision import in_product_dtype

LSTMState = tuple[Tensor, Tensor]


class Block(nn.Module):
    """One layer of the model: an LSTM, the head where the block has one, and the Boom layer.

    Args:
        config: the model's shape.
        has_head: whether this block attends.

    Source: paper, model architecture and the figure of a block.

    Example:
        >>> block = Block(ModelConfig(dim=8, boom_dim=32), has_head=False)
        >>> block(torch.zeros(1, 3, 8), None, None, limit=5)[0].shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, config: ModelConfig, has_head: bool) -> None:
        super().__init__()
        dim = config.dim
        self.sliding = config.memory_window == "sliding"
        self.start_norm = layer_norm(dim)  # LN_start
        self.lstm = LSTM(dim)
        self.head: SingleHeadAttention | None = None
        if has_head:
            self.memory_norm = layer_norm(dim)  # LN_mem
            self.middle_norm = layer_norm(dim)  # LN_mid
            self.head = SingleHeadAttention(dim, config.dropout, config.collapsed)
        self.skip_norm = layer_norm(dim)  # LN_ff
        self.boom_norm = layer_norm(dim)  # LN_xff
        self.boom = Boom(dim, config.boom_dim)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, h: Tensor, lstm_state: LSTMState | None, memory: Memory | None, limit: int
    ) -> tuple[Tensor, LSTMState, Memory | None, Tensor | None]:
        """Takes one segment through the block.

        Args:
            h: (batch, time, dim).
            lstm_state: (hidden, cell) before the segment, each (batch, dim); None for zeros.
            memory: the head's memory before the segment; None where it is empty.
            limit: M, the most rows a query may see.

        Returns:
            The output (batch, time, dim), the LSTM's state and the memory after the segment, and
            the attention weights (batch, time, memory + time), None without a head.
        """
        h, lstm_state = self.before_head(h, lstm_state)
        weights = None
        if self.head is not None:
            # m = LN_mem(h);  h = LN_mid(h);  h = h + drop(head(h, [memory ; m]))
            #                                              (paper: simplified attention)
            rows = in_product_dtype(self.memory_norm(h))  # (batch, time, dim)
            h = self.middle_norm(h)
            memory = self._trim(memory, rows.shape[1], limit)
            past = memory.rows if memory is not None else None  # (batch, memory, dim)
            read, weights = self.head(h, rows, past, self._mask(rows, past, limit))
            memory = (memory or Memory(rows[:, :0].detach())).append(rows, limit)
            h = h + self.dropout(read)
        return self.after_head(h), lstm_state, memory, weights

    def before_head(self, h: Tensor, lstm_state: LSTMState | None) -> tuple[Tensor, LSTMState]:
        """The block's first part, along time: the LSTM, before the head.

        Args:
            h: (batch, time, dim) the block's input.
            lstm_state: (hidden, cell) before the segment, each (batch, dim); None for zeros.

        Returns:
            (batch, time, dim), and the LSTM's state after the segment.
        """
        # h = drop(LSTM(LN_start(h))): it replaces h, no residual  (paper: model architecture)
        h, lstm_state = self.lstm(self.start_norm(h), lstm_state)
        return self.dropout(h), lstm_state

    def after_head(self, h: Tensor) -> Tensor:
        """The block's last part, at each position alone: the Boom layer, after the head.

        Args:
            h: (batch, time, dim).

        Returns:
            The block's output (batch, time, dim).
        """
        # h = LN_ff(h) + drop(Boom(LN_xff(h)))                             (paper: Boom layer)
        return self.skip_norm(h) + self.dropout(self.boom(self.boom_norm(h)))

    def _trim(self, memory: Memory | None, time: int, limit: int) -> Memory | None:
        """The rows of the memory that a segment of this length may see."""
        if memory is None:
            return None
        # Sliding: the first query sees M - 1 rows and itself. The paper: M - L and the segment.
        memory = memory.newest(limit - 1 if self.sliding else limit - time)
        return memory if len(memory) else None

    def _mask(self, rows: Tensor, past: Tensor | None, limit: int) -> Tensor | None:
        """The causal mask of a segment; a single query sees everything that was kept."""
        time = rows.shape[1]
        if time == 1:
            return None
        # Memory and segment together are M rows at most, unless the segment alone is longer.
        window = limit if self.sliding or time > limit else None
        return visible(time, 0 if past is None else past.shape[1], window, rows.device)


class SHARNN(nn.Module):
    """The byte-level language model of the paper.

    Weights start as in the author's code: matrices and embedding from N(0, (0.1 / sqrt(d))^2),
    their biases 0, the LSTMs as PyTorch starts them, LayerNorms at gain 1 and bias 0.

    Args:
        config: the model's shape.

    Source: paper, model architecture.

    Example:
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64, layers=2, attention_layers=(0,)))
        >>> logits, state = model(torch.randint(256, (1, 10)))
        >>> logits.shape, state.memory_rows
        (torch.Size([1, 10, 256]), 10)
        >>> logits, state = model.step(torch.tensor([65]), state)
        >>> logits.shape, state.memory_rows
        (torch.Size([1, 256]), 11)
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.dim)
        heads = config.attention_layers
        self.blocks = nn.ModuleList(Block(config, i in heads) for i in range(config.layers))
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.dropout = Dropout(config.dropout)
        self.apply(self._init_weights)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.1 / math.sqrt(self.config.dim))
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

    @overload
    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        *,
        return_attention: Literal[False] = False,
        memory: int | None = None,
    ) -> tuple[Tensor, State]: ...

    @overload
    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        *,
        return_attention: Literal[True],
        memory: int | None = None,
    ) -> tuple[Tensor, State, dict[int, Tensor]]: ...

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        *,
        return_attention: bool = False,
        memory: int | None = None,
    ) -> tuple[Tensor, State] | tuple[Tensor, State, dict[int, Tensor]]:
        """Predicts the next symbol at every position of a segment.

        Args:
            x: (batch, time) integers below ``vocab_size``.
            state: what the segment before returned; None where a stream starts.
            return_attention: also return the attention weights.
            memory: M for this call, the most rows a query may see; None takes the configuration's.

        Returns:
            Logits (batch, time, vocab_size), the state for the next segment (it holds no
            gradients) and, if asked for, the attention weights: a dictionary from each block that
            has the head to (batch, time, memory + time), whose rows sum to 1.

        Raises:
            InputError: ``x`` has the wrong shape or dtype or (on the CPU, where looking is cheap) a
                symbol that is not in the vocabulary, the state belongs to another batch
                size or model, or ``memory`` is not positive.
        """
        limit = self.config.memory if memory is None else memory
        self._check(x, state, limit)
        h = self.dropout(self.embedding(x.long()))  # (batch, time, dim)
        lstm, memories, attention = [], [], {}
        for i, block in enumerate(self.blocks):
            h, (hidden, cell), rows, weights = block(
                h, state.lstm[i] if state else None, state.memory[i] if state else None, limit
            )
            lstm.append((hidden.detach(), cell.detach()))
            memories.append(rows)
            if weights is not None and return_attention:
                attention[i] = weights
        logits = self.output(h)
        new_state = State(tuple(lstm), tuple(memories))
        return (logits, new_state, attention) if return_attention else (logits, new_state)

    def output(self, h: Tensor) -> Tensor:
        """What the last block's output predicts.

        Args:
            h: (..., dim).

        Returns:
            Logits (..., vocab_size).
        """
        # logits = drop(h) E' + b, with the embedding's own matrix E (paper: model architecture)
        return F.linear(self.dropout(h), self.embedding.weight, self.output_bias)

    def step(
        self, x: Tensor, state: State | None = None, *, memory: int | None = None
    ) -> tuple[Tensor, State]:
        """Predicts the symbol after one more symbol; the same numbers as `forward`.

        Without gradients (`torch.no_grad`) a step costs one new row of memory, not a copy of it.

        Args:
            x: (batch,) integers below ``vocab_size``.
            state: what the step or segment before returned; None where a stream starts.
            memory: M for this call; None takes the configuration's.

        Returns:
            Logits (batch, vocab_size) and the next state.

        Raises:
            InputError: as `forward`.
        """
        if x.dim() != 1:
            raise InputError(
                f"step takes one symbol a stream, shape (batch,), got {tuple(x.shape)}"
            )
        logits, state = self(x[:, None], state, memory=memory)
        return logits[:, 0], state

    def collapse(self) -> None:
        """Folds each head's W_v into the one vector it shapes. Outputs stay the same.

        Do it after training: the vector can no longer be trained through its matrix.

        Source: paper, over-parameterisation of static vectors.

        Example:
            >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64))
            >>> before = model.parameter_count()
            >>> model.collapse()
            >>> before - model.parameter_count() == 16 * 32 + 32
            True
        """
        for block in self.blocks:
            if isinstance(block, Block) and block.head is not None:
                block.head.collapse()
        self.config = dataclasses.replace(self.config, collapsed=True)

    def parameter_count(self) -> int:
        """Number of trained numbers; the embedding and the output share theirs.

        Returns:
            The count.
        """
        return sum(parameter.numel() for parameter in self.parameters())

    def _check(self, x: Tensor, state: State | None, limit: int) -> None:
        if x.dim() != 2 or x.shape[0] == 0 or x.shape[1] == 0:
            raise InputError(f"x must have shape (batch, time), neither 0, got {tuple(x.shape)}")
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise InputError(f"x must hold integers, got {x.dtype}")
        # On a GPU a look would make the host wait for the device in every step.
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            low, high = (int(symbol) for symbol in x.aminmax())
            if low < 0 or high >= self.config.vocab_size:
                raise InputError(
                    f"x must hold symbols from 0 to {self.config.vocab_size - 1}, "
                    f"got {low} to {high}"
                )
        if limit < 1:
            raise InputError(f"memory must be at least 1 row, got {limit}")
        if state is None:
            return
        if len(state.lstm) != self.config.layers:
            raise InputError(
                f"the state has {len(state.lstm)} layers, the model {self.config.layers}"
            )
        if state.batch_size != x.shape[0]:
            raise InputError(f"the state has {state.batch_size} streams, x has {x.shape[0]}")


def in_float32(model: SHARNN) -> SHARNN:
    """The model itself if its weights are float32, else a copy with such weights.

    Args:
        model: of any precision; it is left as it is.

    Returns:
        A model with float32 weights.

    Example:
        >>> model = SHARNN(ModelConfig(dim=8, boom_dim=32))
        >>> in_float32(model) is model
        True
        >>> in_float32(model.double()).output_bias.dtype
        torch.float32
    """
    if all(weight.dtype == torch.float32 for weight in model.parameters()):
        return model
    return copy.deepcopy(model).float()


@contextmanager
def evaluating(model: SHARNN) -> Iterator[None]:
    """Evaluation mode without gradients for a while; the mode is left as it was found.

    Args:
        model: the model.

    Yields:
        Nothing.

    Example:
        >>> model = SHARNN(ModelConfig(dim=8, boom_dim=32))
        >>> with evaluating(model):
        ...     model.training, torch.is_grad_enabled()
        (False, False)
        >>> model.training
        True
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def require_finite(logits: Tensor) -> None:
    """Refuses predictions of a model whose weights are no numbers any more.

    Args:
        logits: of any shape.

    Raises:
        InputError: one of them is not finite.
    """
    if not math.isfinite(logits.double().sum().item()):
        raise InputError("the model's predictions are not finite numbers: its weights are damaged")


def require_symbols(model: SHARNN, largest: int) -> None:
    """Refuses data with bytes that a model of fewer than 256 symbols can't read.

    Args:
        model: who would read them.
        largest: the largest byte.

    Raises:
        InputError: it is no symbol of the model.
    """
    if largest >= model.config.vocab_size:
        raise InputError(
            f"the data hold byte {largest}, but the model has {model.config.vocab_size} symbols"
        )
