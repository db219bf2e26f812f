"""Several processes, one training run: the same steps as one process would take with the same global batch.

Every process works out the whole step (which examples, which negatives: functions of seed and step), runs the user
tower on its share of the examples and the item tower on its share of the items; item vectors are gathered, so negatives
are those of the global batch and logQ is as in one process; gradients are added up.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from zhiyin.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among `count` of them; alone when `count` is 1."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes files and talks to people."""
        return self.rank == 0

    def share(self, length: int) -> slice:
        """This process's part of `length` things."""
        return slice(length * self.rank // self.count, length * (self.rank + 1) // self.count)

    def gathered(self, part: Tensor, length: int) -> Tensor:
        """[length, d] all processes' parts [·, d], in order."""
        if self.count == 1:
            return part
        widest = -(-length // self.count)
        padded = part.new_zeros((widest, *part.shape[1:]))
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(parts, padded)
        sizes = [length * (i + 1) // self.count - length * i // self.count for i in range(self.count)]
        return torch.cat([one[:size] for one, size in zip(parts, sizes, strict=True)])

    def add(self, tensors: list[Tensor]) -> None:
        """Add up each tensor over all processes, in place."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, added in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(added.view_as(tensor))

    def add_sparse(self, gradient: Tensor) -> Tensor:
        """The sum of all processes' sparse gradients of one table."""
        if self.count == 1:
            return gradient
        if gradient.device.type == "cpu":  # elsewhere it would have to be waited for
            gradient = gradient.coalesce()
        rows, values = gradient._indices()[0], gradient._values()
        counts: list[Any] = [None] * self.count
        dist.all_gather_object(counts, len(rows))
        total = max(counts)
        padded = torch.zeros(total, dtype=rows.dtype, device=rows.device)
        padded[: len(rows)] = rows
        filled = values.new_zeros((total, *values.shape[1:]))
        filled[: len(values)] = values
        all_rows = [torch.empty_like(padded) for _ in range(self.count)]
        all_values = [torch.empty_like(filled) for _ in range(self.count)]
        dist.all_gather(all_rows, padded)
        dist.all_gather(all_values, filled)
        kept = list(zip(all_rows, all_values, counts, strict=True))
        return torch.sparse_coo_tensor(
            torch.cat([r[:count] for r, _, count in kept])[None],
            torch.cat([v[:count] for _, v, count in kept]),
            gradient.shape,
            check_invariants=False,
        )

    def told(self, facts: Any) -> Any:
        """What the first process says, on all."""
        if self.count == 1:
            return facts
        said = [facts]
        dist.broadcast_object_list(said, src=0)
        return said[0]


ALONE = Processes()


def own_device(device: torch.device) -> torch.device:
    """Where "cuda" names no card, this process's own of those on its machine: torchrun says which."""
    if str(device) == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """The processes that `torchrun` started; this one alone without it.

    Raises `TrainingError` when the others cannot be reached.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    try:
        # numbers that the host knows go between hosts, without waiting for a card
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"the other processes cannot be reached ({str(error).splitlines()[0]})",
            where="distributed",
            remedy="Start all of them with torchrun: torchrun --nproc-per-node 2 -m zhiyin.cli fit recipe.toml",
        ) from None
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
        dist.barrier()  # nobody leaves while another still listens
    finally:
        dist.destroy_process_group()
