"""The whole model: embedding, blocks of LSTM, head and Boom, and the tied output layer."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharnn.attention import SingleHeadAttention, causal_mask
from sharnn.config import ModelConfig
from sharnn.device import to_autocast_dtype
from sharnn.errors import DamagedModelError, InputError
from sharnn.layers import LSTM, Boom, Dropout, layer_norm
from sharnn.memory import Memory, State, require_state

LSTMState = tuple[Tensor, Tensor]


class Block(nn.Module):
    """One block of the model: an LSTM, optionally the head, and the Boom layer.

    Args:
        config: the model's shape.
        has_head: whether the block has the attention head.

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
        self.lstm_skip: nn.Parameter | None = None
        if config.lstm_skip is not None:
            self.lstm_skip = nn.Parameter(torch.full((dim,), float(config.lstm_skip)))  # g
        self.head: SingleHeadAttention | None = None
        if has_head:
            self.memory_norm = layer_norm(dim)  # LN_mem
            self.middle_norm = layer_norm(dim)  # LN_mid
            self.head = SingleHeadAttention(
                dim, config.dropout, config.collapsed, config.shifted_keys
            )
        self.skip_norm = layer_norm(dim)  # LN_ff
        self.boom_norm = layer_norm(dim)  # LN_xff
        self.boom = Boom(dim, config.boom_dim)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, h: Tensor, lstm_state: LSTMState | None, memory: Memory | None, limit: int
    ) -> tuple[Tensor, LSTMState, Memory | None, Tensor | None]:
        """Reads one segment.

        Args:
            h: (batch, time, dim).
            lstm_state: (hidden, cell) before the segment, (batch, dim) each; None for zeros.
            memory: the head's memory before the segment; None if it is empty.
            limit: M, the maximum number of rows a query can attend to.

        Returns:
            The output (batch, time, dim), the LSTM state and the memory after the segment, and
            the attention weights (batch, time, memory + time); the last two are None without a
            head.
        """
        h, lstm_state = self.before_head(h, lstm_state)
        weights = None
        if self.head is not None:
            # m = LN_mem(h);  h = LN_mid(h);  h = h + drop(head(h, [memory ; m]))
            #                                              (paper: simplified attention)
            m = to_autocast_dtype(self.memory_norm(h))  # (batch, time, dim)
            h = self.middle_norm(h)
            memory = self._trim(memory, m.shape[1], limit)
            past = memory.rows if memory is not None else None  # (batch, memory, dim)
            attended, weights = self.head(h, m, past, self._mask(m, past, limit))
            if memory is None:
                memory = Memory(m[:, :0].detach())
            memory = memory.append(m, limit)
            h = h + self.dropout(attended)
        return self.after_head(h), lstm_state, memory, weights

    def before_head(self, h: Tensor, lstm_state: LSTMState | None) -> tuple[Tensor, LSTMState]:
        """Computes the part of the block before the head: LayerNorm, LSTM and the skip around it.

        Args:
            h: (batch, time, dim) the block's input.
            lstm_state: (hidden, cell) before the segment, (batch, dim) each; None for zeros.

        Returns:
            (batch, time, dim), and the LSTM state after the segment.
        """
        # h = drop(LSTM(LN_start(h))): it replaces h, no residual  (paper: model architecture)
        start = self.start_norm(h)
        h, lstm_state = self.lstm(start, lstm_state)
        h = self.dropout(h)
        if self.lstm_skip is not None:
            # h = drop(LSTM(LN_start(h))) + g LN_start(h)            (not in the paper)
            h = h + self.lstm_skip * start
        return h, lstm_state

    def after_head(self, h: Tensor) -> Tensor:
        """Computes the part of the block after the head, position by position: the Boom layer.

        Args:
            h: (batch, time, dim).

        Returns:
            The block's output, (batch, time, dim).
        """
        # h = LN_ff(h) + drop(Boom(LN_xff(h)))                             (paper: Boom layer)
        return self.skip_norm(h) + self.dropout(self.boom(self.boom_norm(h)))

    def _trim(self, memory: Memory | None, time: int, limit: int) -> Memory | None:
        """Trims the memory to the rows that a segment of length ``time`` can attend to."""
        if memory is None:
            return None
        # Sliding: M - 1 rows, so that the first query sees M with its own. Segment (the paper):
        # M - L rows, so that memory and a segment of length L together have M.
        memory = memory.newest(limit - 1 if self.sliding else limit - time)
        return memory if len(memory) else None

    def _mask(self, m: Tensor, past: Tensor | None, limit: int) -> Tensor | None:
        """Returns the causal mask of a segment; None for a single query, which sees every row."""
        time = m.shape[1]
        if time == 1:
            return None
        # Memory and segment together have at most M rows, unless the segment alone is longer.
        window = limit if self.sliding or time > limit else None
        return causal_mask(time, 0 if past is None else past.shape[1], window, m.device)


class SHARNN(nn.Module):
    """The byte-level language model of the paper.

    The initialisation is the author's: matrices and embedding from N(0, (0.1 / sqrt(d))^2) with
    biases 0, LSTMs as in PyTorch, LayerNorms with gain 1 and bias 0. With ``query_gain`` the
    queries start differently.

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
        blocks = nn.ModuleList(Block(config, i in heads) for i in range(config.layers))
        self.blocks = cast(Sequence[Block], blocks)  # for type checkers
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.dropout = Dropout(config.dropout)
        self.apply(self._init_weights)
        for block in self.blocks:
            if config.query_gain is not None and block.head is not None:
                block.head.init_query(config.query_gain)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.1 / math.sqrt(self.config.dim))
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        *,
        return_attention: bool = False,
        memory_limit: int | None = None,
    ) -> tuple[Tensor, State] | tuple[Tensor, State, dict[int, Tensor]]:
        """Predicts the next symbol at every position of a segment.

        Args:
            x: (batch, time) integers below ``vocab_size``.
            state: the state returned for the previous segment; None at the start of a stream.
            return_attention: also return the attention weights, as `forward_with_attention`.
            memory_limit: M for this call, the maximum number of rows a query can attend to; None
                for the configuration's ``memory``.

        Returns:
            Logits (batch, time, vocab_size) in nats, and the state for the next segment, which
            holds no gradients. With ``return_attention`` also the attention weights.

        Raises:
            InputError: ``x`` has the wrong shape or dtype or (checked only on the CPU, since it
                is cheap there) a symbol outside the vocabulary; the state belongs to another
                batch size or model; or ``memory_limit`` is not positive.
        """
        attention: dict[int, Tensor] = {}
        logits, state = self._read(x, state, memory_limit, attention if return_attention else None)
        return (logits, state, attention) if return_attention else (logits, state)

    def forward_with_attention(
        self, x: Tensor, state: State | None = None, *, memory_limit: int | None = None
    ) -> tuple[Tensor, State, dict[int, Tensor]]:
        """Predicts like `forward`, and returns the attention weights too.

        Args:
            x, state, memory_limit: see `forward`.

        Returns:
            Logits and state as in `forward`, and a dictionary from the number of each block that
            has the head to its weights (batch, time, memory + time), which sum to 1 for each
            query.

        Raises:
            InputError: see `forward`.
        """
        attention: dict[int, Tensor] = {}
        logits, state = self._read(x, state, memory_limit, attention)
        return logits, state, attention

    def _read(
        self,
        x: Tensor,
        state: State | None,
        memory_limit: int | None,
        attention: dict[int, Tensor] | None,
    ) -> tuple[Tensor, State]:
        """Reads a segment, and stores the attention weights in ``attention`` if it is given."""
        limit = self.config.memory if memory_limit is None else memory_limit
        self._check(x, state, limit)
        h = self.dropout(self.embedding(x.long()))  # (batch, time, dim)
        lstm, memories = [], []
        for i, block in enumerate(self.blocks):
            h, (hidden, cell), memory, weights = block(
                h, state.lstm[i] if state else None, state.memory[i] if state else None, limit
            )
            lstm.append((hidden.detach(), cell.detach()))
            memories.append(memory)
            if attention is not None and weights is not None:
                attention[i] = weights
        return self.output(h), State(tuple(lstm), tuple(memories))

    def output(self, h: Tensor) -> Tensor:
        """Returns the logits (..., vocab_size) for the last block's output (..., dim)."""
        # logits = drop(h) E' + b, with the embedding's own matrix E (paper: model architecture)
        return F.linear(self.dropout(h), self.embedding.weight, self.output_bias)

    def step(
        self, x: Tensor, state: State | None = None, *, memory_limit: int | None = None
    ) -> tuple[Tensor, State]:
        """Reads one symbol and predicts the next; the same numbers as `forward`.

        Without gradients (`torch.no_grad`) a step writes one row of memory and copies none.

        Args:
            x: (batch,) integers below ``vocab_size``.
            state: the state returned for the previous step or segment; None at the start of a
                stream.
            memory_limit: see `forward`.

        Returns:
            Logits (batch, vocab_size) and the next state.

        Raises:
            InputError: see `forward`.
        """
        if x.dim() != 1:
            raise InputError(
                f"step takes one symbol per stream, shape (batch,), got {tuple(x.shape)}"
            )
        logits, state = self(x[:, None], state, memory_limit=memory_limit)
        return logits[:, 0], state

    def collapse(self) -> None:
        """Replaces each head's W_v with the one vector it produces. Outputs stay the same.

        Use it after training: the vector is no longer trained through its matrix.

        Source: paper, over-parameterisation of static vectors.

        Example:
            >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64))
            >>> before = model.parameter_count()
            >>> model.collapse()
            >>> before - model.parameter_count() == 16 * 32 + 32
            True
        """
        for block in self.blocks:
            if block.head is not None:
                block.head.collapse()
        self.config = dataclasses.replace(self.config, collapsed=True)

    def parameter_count(self) -> int:
        """Returns the number of parameters; the matrix of embedding and output counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _check(self, x: Tensor, state: State | None, limit: int) -> None:
        if x.dim() != 2 or x.shape[0] == 0 or x.shape[1] == 0:
            raise InputError(
                f"x must have shape (batch, time) with at least one element, got {tuple(x.shape)}"
            )
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise InputError(f"x must hold integers, got {x.dtype}")
        # On a GPU this check would make the host wait for the device in every step.
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            low, high = (int(symbol) for symbol in x.aminmax())
            if low < 0 or high >= self.config.vocab_size:
                raise InputError(
                    f"x must hold symbols from 0 to {self.config.vocab_size - 1}, "
                    f"got {low} to {high}"
                )
        if limit < 1:
            raise InputError(f"memory_limit must be at least 1 row, got {limit}")
        if state is not None:
            require_state(state, self.config, x.shape[0])


def in_float32(model: SHARNN) -> SHARNN:
    """Returns the model if its weights are float32, else a float32 copy.

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
    """Context manager: evaluation mode without gradients; restores the mode afterwards.

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


def require_finite(values: Tensor, name: str = "its output") -> None:
    """Raises an error if a model's weights or outputs contain NaN or Inf.

    Args:
        values: floats of any shape.
        name: what they are, for the message.

    Raises:
        DamagedModelError: one of them is NaN or Inf.
    """
    # A finite sum is fast to compute and proves that all are finite. Finite ones can overflow.
    if not math.isfinite(values.sum().item()) and not values.isfinite().all():
        raise DamagedModelError(
            f"the model is damaged: {name} contains NaN or Inf; use another model"
        )


def require_symbols(model: SHARNN, largest: int) -> None:
    """Raises an error if data contain a byte that is outside the model's vocabulary.

    Args:
        model: a model, perhaps with fewer than 256 symbols.
        largest: the largest byte in the data.

    Raises:
        InputError: ``largest`` is not in the vocabulary.
    """
    if largest >= model.config.vocab_size:
        raise InputError(
            f"the data contains byte {largest}, but the model has {model.config.vocab_size} symbols"
        )
