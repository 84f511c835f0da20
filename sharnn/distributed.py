"""Collective operations across the processes that train one model together."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from sharnn.device import pick_device
from sharnn.errors import InputError

T = TypeVar("T")
# Environment variables that torchrun sets.
RANK, WORLD_SIZE, LOCAL_RANK = "RANK", "WORLD_SIZE", "LOCAL_RANK"
# A process may wait while another scores a whole validation set on a CPU. When a process fails,
# torchrun ends the others at once, whatever the timeout.
TIMEOUT = timedelta(days=1)
_group_numbers = itertools.count()


class CollectiveError(InputError):
    """An error in one process that all processes raise, at the same point of the program."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one model together; without arguments a single process.

    Data are exchanged through the CPU. A collective operation returns only after every process has
    called it; with a single process it returns at once.

    Args:
        rank: number of this process; rank 0 writes checkpoints and logs.
        world_size: number of processes.
        local_rank: number of this process, and of its GPU, on its machine.

    Example:
        >>> ProcessGroup().is_rank0, ProcessGroup(rank=1, world_size=2).shard(6)
        (True, slice(3, 6, None))
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_rank0(self) -> bool:
        """True in the process that writes checkpoints and logs."""
        return self.rank == 0

    def shard(self, streams: int) -> slice:
        """Returns this process's contiguous share of the streams of a batch.

        The shares are equal if ``streams`` is a multiple of the number of processes.
        """
        rank, size = self.rank, self.world_size
        return slice(rank * streams // size, (rank + 1) * streams // size)

    def all_reduce(self, values: Sequence[float]) -> list[float]:
        """Returns the sums of numbers over all processes, the same to the last bit in each.

        Example:
            >>> ProcessGroup().all_reduce([1.0, 2.5])
            [1.0, 2.5]
        """
        if self.world_size == 1:
            return list(values)
        import torch.distributed as dist

        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    @contextmanager
    def shared_errors(self) -> Iterator[None]:
        """Context manager: if the block fails in one process, it raises an error in all of them.

        Without it the others would wait for the failed process in their next collective
        operation. The block must not contain a collective operation itself.

        Raises:
            CollectiveError: the block raised an error in some process.
            Exception: the block raised an exception other than `InputError` in this process.

        Example:
            >>> with ProcessGroup().shared_errors():
            ...     raise InputError("no such file")
            Traceback (most recent call last):
            ...
            sharnn.errors.InputError: no such file
        """
        if self.world_size == 1:
            yield
            return
        error = None
        try:
            yield
        except Exception as caught:
            error = caught
        messages = self._all_gather(None if error is None else str(error) or type(error).__name__)
        if error is not None and not isinstance(error, InputError):
            raise error
        for rank, message in enumerate(messages):
            if message is not None:
                prefix = "" if rank == 0 else f"process {rank}: "
                raise CollectiveError(prefix + message) from error

    def require_same(self, value: str, message: str) -> None:
        """Raises an error if the processes have different values.

        Raises:
            CollectiveError: with ``message``, in all processes.
        """
        if self.world_size > 1 and len(set(self._all_gather(value))) > 1:
            raise CollectiveError(message)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Collects a tensor of each process, all of one shape and dtype, in rank 0.

        Returns:
            In rank 0 all tensors in the order of their ranks, on the CPU; elsewhere an empty list.
        """
        if self.world_size == 1:
            return [tensor]
        import torch.distributed as dist

        own = _to_bytes(tensor)
        received = [torch.empty_like(own) for _ in range(self.world_size)]
        dist.gather(own, received if self.is_rank0 else None, dst=0)
        if not self.is_rank0:
            return []
        return [content.view(tensor.dtype).view(tensor.shape) for content in received]

    def broadcast_object(self, value: T) -> T:
        """Returns rank 0's value in every process; it must be small and picklable."""
        if self.world_size == 1:
            return value
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def broadcast(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns rank 0's tensors, by name, in every process; they are on the CPU."""
        if self.world_size == 1:
            return dict(tensors)
        import torch.distributed as dist

        forms = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
        received = {}
        for name, dtype, shape in self.broadcast_object(forms):
            received[name] = tensors[name] if self.is_rank0 else torch.empty(shape, dtype=dtype)
            dist.broadcast(_to_bytes(received[name]), src=0)  # writes into the new tensor's storage
        return received

    def _all_gather(self, value: Any) -> list[Any]:
        """Returns a small value of every process, in the order of their ranks."""
        import torch.distributed as dist

        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values


def _to_bytes(tensor: Tensor) -> Tensor:
    """Returns a tensor's content as (bytes,) on the CPU: gloo does not support every dtype."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)


def current_group() -> ProcessGroup:
    """Returns torch's process group, or a single process if there is none.

    Raises:
        InputError: the caller's process group does not support CPU tensors.

    Example:
        >>> current_group()
        ProcessGroup(rank=0, world_size=1, local_rank=0)
    """
    dist = torch.distributed
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return ProcessGroup()
    if "cpu:" not in dist.get_backend_config():
        raise InputError(
            "the process group does not support CPU tensors: create it with "
            'torch.distributed.init_process_group("cpu:gloo,cuda:nccl")'
        )
    rank = dist.get_rank()
    return ProcessGroup(rank, dist.get_world_size(), int(os.environ.get(LOCAL_RANK, rank)))


def local_device(name: str, group: ProcessGroup) -> torch.device:
    """Returns the device of this process; with several processes, each gets its own GPU.

    Args:
        name: see `sharnn.device.pick_device`.
        group: the processes that train together.

    Raises:
        InputError: see `sharnn.device.pick_device`; or this machine has fewer GPUs than processes.

    Example:
        >>> local_device("cpu", ProcessGroup())
        device(type='cpu')
    """
    device = pick_device(name)
    if group.world_size == 1 or device.type == "cpu":
        return device
    gpus = torch.cuda.device_count()
    if device.type != "cuda" or group.local_rank >= gpus:
        raise InputError(
            f"each process needs its own CUDA device, and this machine has {gpus}: "
            "start as many processes as there are GPUs, or use device cpu"
        )
    device = torch.device("cuda", group.local_rank)
    torch.cuda.set_device(device)
    return device


def environment_rank() -> int:
    """Returns the rank that torchrun gave this process, before or after it joins the group.

    A process that torchrun did not start has rank 0.

    Example:
        >>> environment_rank()
        0
    """
    return int(os.environ.get(RANK, 0)) if _is_one_of_several() else 0


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """Context manager: joins the other processes that torchrun started.

    A process that torchrun did not start, or started alone, stays alone. An existing process
    group, created by the caller or by an enclosing block, is used and left unchanged.

    Yields:
        The group.

    Raises:
        InputError: the other processes can't be reached.

    Example:
        >>> with process_group() as group:
        ...     group.world_size
        1
    """
    dist = torch.distributed
    if not _is_one_of_several() or dist.is_initialized():
        yield current_group()
        return
    # NCCL for tensors on GPUs, gloo for everything else.
    gpus = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        # A prefix per group, so that a second group does not read the addresses of the first.
        store, rank, size = next(iter(dist.rendezvous("env://")))  # type: ignore[attr-defined]
        prefix = f"sharnn.{next(_group_numbers)}"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus else "gloo",
            store=dist.PrefixStore(prefix, store),  # type: ignore[attr-defined]
            rank=rank,
            world_size=size,
            timeout=TIMEOUT,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"can't join the other training processes: {reason}") from error
    try:
        yield current_group()
    except BaseException as error:
        # Destroying the group is collective. After an error in this process alone, the process
        # just ends: NCCL might wait here for the others, which wait for this one elsewhere.
        if isinstance(error, CollectiveError):
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _is_one_of_several() -> bool:
    """Returns True if torchrun started this process and others."""
    values = [os.environ.get(name, "") for name in (RANK, WORLD_SIZE, LOCAL_RANK)]
    return all(value.isdigit() for value in values) and int(os.environ[WORLD_SIZE]) > 1
