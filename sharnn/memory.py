"""The state carried from one segment to the next: LSTM states and the head's memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sharnn.config import ModelConfig
from sharnn.errors import InputError


class _Buffer:
    """Storage that several memories can share; its first ``used`` rows are taken."""

    def __init__(self, storage: Tensor, used: int) -> None:
        self.storage = storage  # (batch, capacity, dim)
        self.used = used


class Memory:
    """The newest rows that one head remembers, oldest first. A memory is immutable.

    `append` returns a new memory. Memories made from each other share one buffer with spare room
    at its end, so that remembering one more byte writes one row instead of copying thousands. If
    two continuations grow from the same memory, the second finds that room taken and gets a
    buffer of its own.

    Args:
        rows: (batch, rows, dim) the remembered rows.

    Example:
        >>> memory = Memory(torch.zeros(1, 3, 8))
        >>> longer = memory.append(torch.ones(1, 1, 8), limit=5)
        >>> len(memory), len(longer), len(longer.append(torch.ones(1, 4, 8), limit=5))
        (3, 4, 5)
    """

    def __init__(self, rows: Tensor) -> None:
        self._buffer = _Buffer(rows, rows.shape[1])
        self._start, self._end = 0, rows.shape[1]

    @classmethod
    def _view(cls, buffer: _Buffer, start: int, end: int) -> Memory:
        memory = cls.__new__(cls)
        memory._buffer, memory._start, memory._end = buffer, start, end
        return memory

    def __len__(self) -> int:
        return self._end - self._start

    @property
    def shape(self) -> tuple[int, int, int]:
        """(batch, rows, dim)."""
        batch, _, dim = self._buffer.storage.shape
        return batch, len(self), dim

    @property
    def rows(self) -> Tensor:
        """(batch, rows, dim) the remembered rows, oldest first; a view, not a copy."""
        return self._buffer.storage[:, self._start : self._end]

    def newest(self, limit: int) -> Memory:
        """Returns a memory of the newest ``limit`` rows, or of all if there are fewer.

        It shares this memory's storage.
        """
        return Memory._view(self._buffer, max(self._start, self._end - max(limit, 0)), self._end)

    def append(self, rows: Tensor, limit: int) -> Memory:
        """Returns a memory with ``rows`` added, trimmed to its newest ``limit`` rows.

        With gradients enabled the rows are copied, since a backward pass may need the old ones;
        without (`torch.no_grad`) the new rows are written into spare room.

        Args:
            rows: (batch, time, dim) the rows to add; they are detached.
            limit: maximum number of rows to keep.
        """
        rows = rows.detach()[:, -limit:]
        time = rows.shape[1]
        buffer, start, end = self._buffer, self._start, self._end
        if torch.is_grad_enabled():
            # A backward pass may still need the old rows, so nothing is overwritten. The new
            # storage has no spare room: it has the same layout as a memory read from a checkpoint,
            # and so a resumed run rounds like an uninterrupted one.
            return Memory(torch.cat([self.newest(limit - time).rows, rows], dim=1))
        if buffer.used != end or buffer.storage.shape[1] - end < time:
            kept = self.newest(limit - time).rows
            # Room for a quarter more than the rows there are: the limit may be huge.
            buffer = _grow(kept, time + max(min(limit, kept.shape[1]) // 4, 256))
            start, end = 0, kept.shape[1]
        buffer.storage[:, end : end + time] = rows
        buffer.used = end + time
        return Memory._view(buffer, start, end + time).newest(limit)

    def map(self, function: Callable[[Tensor], Tensor]) -> Memory:
        """Returns a memory whose rows are ``function(rows)``, (batch, rows, dim)."""
        return Memory(function(self.rows))


def _grow(rows: Tensor, extra: int) -> _Buffer:
    """Returns a buffer that starts with a copy of ``rows`` and has room for ``extra`` more."""
    batch, count, dim = rows.shape
    storage = rows.new_empty(batch, count + extra, dim)
    storage[:, :count] = rows
    return _Buffer(storage, count)


@dataclass(frozen=True)
class State:
    """Everything that the next segment needs from the past. It holds no gradients.

    Args:
        lstm: the pair (hidden, cell) of each block, (batch, dim) each.
        memory: the memory of each block; None for a block without the head.

    Source: paper, simplified attention (its memory).

    Example:
        >>> state = State(((torch.zeros(2, 8), torch.ones(2, 8)),), (Memory(torch.zeros(2, 3, 8)),))
        >>> state.batch_size, state.memory_rows
        (2, 3)
        >>> sorted(state.to_tensors())
        ['lstm.0.cell', 'lstm.0.hidden', 'memory.0']
    """

    lstm: tuple[tuple[Tensor, Tensor], ...]
    memory: tuple[Memory | None, ...]

    @property
    def batch_size(self) -> int:
        """Number of streams."""
        return self.lstm[0][0].shape[0]

    @property
    def memory_rows(self) -> int:
        """Number of rows in the largest memory of any head; 0 without a head."""
        return max((len(memory) for memory in self.memory if memory is not None), default=0)

    def map(self, function: Callable[[Tensor], Tensor]) -> State:
        """Returns a state with ``function`` applied to every tensor.

        Args:
            function: takes and returns a tensor whose first axis is the batch, for example
                ``lambda tensor: tensor[:1]`` or ``lambda tensor: tensor.to("cuda")``.
        """
        return State(
            tuple((function(hidden), function(cell)) for hidden, cell in self.lstm),
            tuple(memory.map(function) if memory is not None else None for memory in self.memory),
        )

    def is_finite(self) -> bool:
        """Returns True if the state contains neither NaN nor Inf."""
        return all(bool(torch.isfinite(tensor).all()) for tensor in self.to_tensors().values())

    def to_tensors(self) -> dict[str, Tensor]:
        """Returns the tensors by name, as a checkpoint stores them.

        The names are ``lstm.N.hidden``, ``lstm.N.cell`` and, if block N has the head,
        ``memory.N``.
        """
        tensors = {}
        for i, (hidden, cell) in enumerate(self.lstm):
            tensors[f"lstm.{i}.hidden"] = hidden
            tensors[f"lstm.{i}.cell"] = cell
        for i, memory in enumerate(self.memory):
            if memory is not None:
                tensors[f"memory.{i}"] = memory.rows
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], layers: int) -> State:
        """Returns the state that `to_tensors` wrote.

        Args:
            tensors: tensors by name.
            layers: number of blocks.

        Raises:
            KeyError: an LSTM state is missing.
        """
        lstm = tuple(
            (tensors[f"lstm.{i}.hidden"], tensors[f"lstm.{i}.cell"]) for i in range(layers)
        )
        names = [f"memory.{i}" for i in range(layers)]
        return cls(
            lstm, tuple(Memory(tensors[name]) if name in tensors else None for name in names)
        )


def require_state(state: State, config: ModelConfig, num_streams: int | None = None) -> None:
    """Raises an error unless a state has the shapes of a model's state.

    Args:
        state: the state to check; only shapes are compared, so this is fast.
        config: the model's shape.
        num_streams: number of streams that the model will read; None for any.

    Raises:
        InputError: the state has another number of streams, or belongs to another model.

    Example:
        >>> state = State(((torch.zeros(2, 8), torch.ones(2, 8)),), (None,))
        >>> require_state(state, ModelConfig(layers=1, dim=8, attention_layers=()), 2)
        >>> require_state(state, ModelConfig(layers=1, dim=8, attention_layers=(0,)), 2)
        Traceback (most recent call last):
        ...
        sharnn.errors.InputError: the state belongs to another model: block 0 has no memory
    """
    if not isinstance(state, State):
        raise InputError(f"state must be a State, got {type(state).__name__}")
    if len(state.lstm) != config.layers or len(state.memory) != config.layers:
        raise InputError(f"the state has {len(state.lstm)} layers, the model {config.layers}")
    num_streams = state.batch_size if num_streams is None else num_streams
    if state.batch_size != num_streams:
        raise InputError(f"the state has {state.batch_size} streams, x has {num_streams}")
    for i, (lstm, memory) in enumerate(zip(state.lstm, state.memory, strict=True)):
        has_head = i in config.attention_layers
        if (memory is not None) != has_head:
            problem = "has no memory" if has_head else "has a memory, but the model no head there"
            raise InputError(f"the state belongs to another model: block {i} {problem}")
        shapes = [tuple(tensor.shape) for tensor in lstm]
        expected: list[tuple[int, ...]] = [(num_streams, config.dim)] * 2
        if memory is not None:
            shapes.append(memory.shape)
            expected.append((num_streams, len(memory), config.dim))
        if shapes != expected:
            raise InputError(
                f"the state belongs to another model: block {i} has tensors of shape "
                f"{', '.join(map(str, shapes))}, expected {', '.join(map(str, expected))}"
            )
