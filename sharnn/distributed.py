"""What a training process knows of its siblings, and the few things they tell each other."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from sharnn.errors import InputError

T = TypeVar("T")
# torchrun tells each process these.
RANK, COUNT, LOCAL = "RANK", "WORLD_SIZE", "LOCAL_RANK"
# One may wait for another that scores a whole validation set on a CPU. When a process ends with
# an error, torchrun ends the others at once, however long they would have waited.
PATIENCE = timedelta(days=1)
_joins = itertools.count()


class SharedError(InputError):
    """Bad input that one process met and that all of them raise, at the same place."""


@dataclass(frozen=True)
class Ranks:
    """The processes that train one model together; without arguments one that trains alone.

    What they tell each other passes through the CPU. Every process must call a method for any of
    them to return; a process that trains alone calls nobody.

    Args:
        rank: this process's number; 0 is the one that writes and speaks.
        count: how many there are.
        local: this process's number among those of its machine, and its GPU's.

    Example:
        >>> Ranks().is_first, Ranks(rank=1, count=2).share(6)
        (True, slice(3, 6, None))
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, streams: int) -> slice:
        """Which streams of a batch are this process's.

        Args:
            streams: how many all processes have together.

        Returns:
            A contiguous share; they are equal where the number of processes divides the streams.
        """
        return slice(self.rank * streams // self.count, (self.rank + 1) * streams // self.count)

    def sums(self, values: Sequence[float]) -> list[float]:
        """Adds up numbers over all processes.

        Args:
            values: this process's, as many as every other's.

        Returns:
            The sums, the same everywhere to the last bit.

        Example:
            >>> Ranks().sums([1.0, 2.5])
            [1.0, 2.5]
        """
        if self.count == 1:
            return list(values)
        import torch.distributed as dist

        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def agree(self, function: Callable[[], T]) -> T:
        """Calls a function in every process; where it fails in one, it fails in all.

        Args:
            function: calls no other method of this class.

        Returns:
            What it returned here.

        Raises:
            SharedError: it raised an error in some process, which this one reports.
            Exception: it raised something else than an `InputError` here.
        """
        if self.count == 1:
            return function()
        value, error = None, None
        try:
            value = function()
        except Exception as caught:
            error = caught
        reasons = self._all(None if error is None else str(error) or type(error).__name__)
        if error is not None and not isinstance(error, InputError):
            raise error
        for rank, reason in enumerate(reasons):
            if reason is not None:
                raise SharedError(reason if rank == 0 else f"process {rank}: {reason}") from error
        return cast(T, value)

    def first(self, function: Callable[[], T]) -> T:
        """Calls a function in the first process alone and tells the others what came of it.

        Args:
            function: returns something small that can be pickled.

        Returns:
            What it returned there.

        Raises:
            SharedError: it raised an error there.
        """
        value = self.agree(lambda: function() if self.is_first else None)
        if self.count == 1:
            return cast(T, value)
        import torch.distributed as dist

        told = [value]
        dist.broadcast_object_list(told, src=0)
        return cast(T, told[0])

    def in_turn(self, function: Callable[[], T]) -> T:
        """Calls a function in one process of each machine, and only then in the others.

        Args:
            function: for example fetches a file that the others will find.

        Returns:
            What it returned here.

        Raises:
            SharedError: it raised an error in some process.
        """
        leads = self.local == 0
        early = self.agree(lambda: function() if leads else None)
        late = self.agree(lambda: None if leads else function())
        return cast(T, early if leads else late)

    def require_same(self, value: str, message: str) -> None:
        """Refuses processes that were not given the same.

        Args:
            value: what must be the same.
            message: the error's words where it isn't.

        Raises:
            SharedError: some process has another value than this one.
        """
        if self.count > 1 and len(set(self._all(value))) > 1:
            raise SharedError(message)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Brings a tensor of every process to the first one.

        Args:
            tensor: this process's, of the same shape and dtype everywhere.

        Returns:
            In the first process all of them in order, on the CPU; elsewhere nothing.
        """
        if self.count == 1:
            return [tensor]
        import torch.distributed as dist

        mine = _to_bytes(tensor)
        places = [torch.empty_like(mine) for _ in range(self.count)] if self.is_first else None
        dist.gather(mine, places, dst=0)
        return [_from_bytes(place, tensor.dtype, tensor.shape) for place in places or []]

    def spread(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Hands the first process's tensors to all.

        Args:
            tensors: by name; looked at in the first process only.

        Returns:
            The same tensors in every process, on the CPU.
        """
        if self.count == 1:
            return dict(tensors)
        import torch.distributed as dist

        forms = self.first(lambda: [(n, t.dtype, tuple(t.shape)) for n, t in tensors.items()])
        received = {}
        for name, dtype, shape in forms:
            received[name] = tensors[name] if self.is_first else torch.empty(shape, dtype=dtype)
            dist.broadcast(_to_bytes(received[name]), src=0)  # a new tensor's bytes are its own
        return received

    def _all(self, value: Any) -> list[Any]:
        """A small value of every process, in order."""
        import torch.distributed as dist

        values = [None] * self.count
        dist.all_gather_object(values, value)
        return values


def _to_bytes(tensor: Tensor) -> Tensor:
    """A tensor's content (bytes,) on the CPU: gloo doesn't know every dtype."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)


def _from_bytes(content: Tensor, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    """The tensor whose content (bytes,) this is."""
    return content.view(dtype).view(tuple(shape))


def current() -> Ranks:
    """The processes this one has joined.

    Returns:
        Those of torch's process group; this one alone where there is none.

    Raises:
        InputError: the caller's process group can't pass on tensors of the CPU.

    Example:
        >>> current()
        Ranks(rank=0, count=1, local=0)
    """
    dist = torch.distributed
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return Ranks()
    if "cpu:" not in dist.get_backend_config():
        raise InputError(
            "the process group serves no CPU tensors: make it with "
            'torch.distributed.init_process_group("cpu:gloo,cuda:nccl")'
        )
    rank = dist.get_rank()
    return Ranks(rank, dist.get_world_size(), int(os.environ.get(LOCAL, rank)))


def started_rank() -> int:
    """The number torchrun gave this process, whether it has joined the others yet or not.

    Returns:
        The number; 0 for a process that torchrun didn't start.

    Example:
        >>> started_rank()
        0
    """
    return int(os.environ.get(RANK, 0)) if _is_one_of_several() else 0


@contextmanager
def joined() -> Iterator[Ranks]:
    """Joins the other processes that torchrun started, for as long as the block lasts.

    A process that torchrun didn't start, or started alone, stays alone. Where a process group is
    there already, made by the caller or by a block around this one, it is used and left as it is.

    Yields:
        The processes.

    Raises:
        InputError: the others can't be reached.

    Example:
        >>> with joined() as ranks:
        ...     ranks.count
        1
    """
    dist = torch.distributed
    if not _is_one_of_several() or dist.is_initialized():
        yield current()
        return
    # NCCL for what lies on a GPU, gloo for all that is said beside it.
    gpus = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        # Who joins a second time must not read the addresses of the first.
        store, rank, count = next(iter(dist.rendezvous("env://")))  # type: ignore[attr-defined]
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus else "gloo",
            store=dist.PrefixStore(f"sharnn.{next(_joins)}", store),  # type: ignore[attr-defined]
            rank=rank,
            world_size=count,
            timeout=PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"can't join the other training processes: {reason}") from error
    try:
        yield current()
    except BaseException as error:
        # Leaving is done together. After an error of its own a process just ends: NCCL might wait
        # for the others here, and they for this one.
        if isinstance(error, SharedError):
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _is_one_of_several() -> bool:
    """Whether torchrun started this process and others."""
    names = (RANK, COUNT, LOCAL)
    return all(os.environ.get(name, "").isdigit() for name in names) and int(os.environ[COUNT]) > 1
