"""Training in several processes, started by torchrun: who is who, and what has to be the same everywhere."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist


def same_everywhere(tensors: Iterable[torch.Tensor]) -> None:
    """Give every process the first one's values, in place; nothing where there is one process."""
    if not dist.is_available() or not dist.is_initialized():
        return
    for tensor in tensors:
        dist.broadcast(tensor, 0)
