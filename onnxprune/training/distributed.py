"""Training in several processes started by torchrun: ranks, shares of a batch, and values that all must share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from onnxprune.errors import SettingError
from onnxprune.training.moments import Moments


@dataclass(frozen=True)
class Processes:
    """The processes of a job: how many, the rank of this one, and its device."""

    count: int
    rank: int
    device: torch.device

    def part(self, samples: int, run: int = 1) -> slice:
        """This process's share of a batch, in whole runs of `run` samples.

        Raises:
            SettingError: the batch cannot be divided equally; unequal shares would have another mean gradient.
        """
        if samples % (self.count * run):
            runs = f" in runs of {run}" if run > 1 else ""
            raise SettingError(
                f"a batch of {samples} samples cannot be divided equally among {self.count} processes{runs}: "
                f"give a --batch-size that is a multiple of {self.count * run}"
            )
        size = samples // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over all processes after each backward pass."""
        if self.count == 1:
            return module
        # The branch that an If does not run has no gradient; buffers change only in pruning steps, which broadcast
        # them with `same_everywhere`.
        return DistributedDataParallel(module, find_unused_parameters=True, broadcast_buffers=False)

    def alone(self, module: nn.Module, alone: bool) -> AbstractContextManager[None]:
        """Whether a backward pass leaves the gradients in this process, to be summed with those of later ones."""
        return module.no_sync() if alone and isinstance(module, DistributedDataParallel) else nullcontext()

    def share(self, samples: int, group: int = 1) -> slice:
        """This process's share of samples in order, in whole groups; shares differ by at most one group."""
        ends = [rank * (samples // group) // self.count * group for rank in (self.rank, self.rank + 1)]
        return slice(ends[0], ends[1] if self.rank + 1 < self.count else samples)

    def total(self, number: float) -> float:
        """The sum of every process's number."""
        if self.count == 1:
            return number
        total = torch.tensor(number, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total)

    def mean(self, number: float) -> float:
        """The mean of every process's number."""
        return self.total(number) / self.count

    def mean_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The mean of every process's tensor."""
        if self.count == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total / self.count

    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Set floating-point tensors to their mean over all processes, in place."""
        for tensor in tensors:
            if self.count > 1 and tensor.is_floating_point():
                tensor.copy_(self.mean_of(tensor))

    def variance(self, moments: Moments) -> float:
        """The variance of the elements of every process together; 0 without any, NaN where one is not finite."""
        count, total, squares = map(self.total, (moments.count, moments.total, moments.squares))
        # In this order, NaN stays.
        return max(squares / count - (total / count) ** 2, 0.0) if count else 0.0

    def gather(self, content: Any) -> list[Any]:
        """What every process gives, in the order of their ranks."""
        if self.count == 1:
            return [content]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, content)
        return found


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the processes that torchrun started; without torchrun, there is one process.

    Raises:
        SettingError: there is no such device.
    """
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    here = _device(device)
    if count == 1 or dist.is_initialized():
        yield Processes(count, rank, here)
        return
    dist.init_process_group("nccl" if here.type == "cuda" else "gloo")
    try:
        yield Processes(count, rank, here)
    finally:
        dist.destroy_process_group()


def same_everywhere(tensors: Iterable[torch.Tensor]) -> None:
    """Broadcast the values of the first process to all others, in place."""
    if not dist.is_available() or not dist.is_initialized():
        return
    for tensor in tensors:
        dist.broadcast(tensor, 0)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SettingError(f"--device {name} cannot be used ({reason}): use --device cpu") from None
    return device
