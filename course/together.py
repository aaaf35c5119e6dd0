"""Several processes that train one model: each reads a part of every batch, and they agree on the gradients."""

import os

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from course.tasks import Batch


class Together:
    """The processes of a run; alone unless `torchrun` has started this one."""

    def __init__(self, rank: int = 0, size: int = 1, device: str = "cpu") -> None:
        """Say which of how many processes this is.

        Args:
            rank: its number, from 0.
            size: how many there are.
            device: where it trains; it decides how they talk.
        """
        self.rank, self.size, self.device = rank, size, device

    @classmethod
    def started(cls, device: str) -> "Together":
        """Meet the processes that `torchrun` has started, if it has; on CUDA each takes a device of its own."""
        if "WORLD_SIZE" not in os.environ:
            return cls(device=device)
        if device == "cuda":
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        return cls(distributed.get_rank(), distributed.get_world_size(), device)

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks and writes."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model as it is trained: its gradients become the mean of all processes'."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def part(self, batch: Batch) -> Batch:
        """This process's share of a batch: every so-manyth example, so that long ones are shared out."""
        return tuple(tensor[self.rank :: self.size] for tensor in batch)

    def sum(self, total: float, count: int) -> tuple[float, int]:
        """The sums over all processes."""
        if self.size == 1:
            return total, count
        both = torch.tensor([total, count], dtype=torch.float64, device=self.device)
        distributed.all_reduce(both)
        return both[0].item(), int(both[1].item())

    def longest(self, seconds: float) -> float:
        """The largest of all processes' numbers: they must agree on when time is over."""
        if self.size == 1:
            return seconds
        most = torch.tensor(seconds, dtype=torch.float64, device=self.device)
        distributed.all_reduce(most, op=distributed.ReduceOp.MAX)
        return most.item()

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def leave(self) -> None:
        """Say goodbye."""
        if self.size > 1:
            distributed.destroy_process_group()
