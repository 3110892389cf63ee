"""Detectors: sums over the processes of a fit, under torchrun or alone."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """The processes that share a fit; each holds its own rows and all end with the same mixture."""

    rank: int
    size: int

    @staticmethod
    def present() -> "Processes":
        """Return the processes of the initialised torch.distributed group, or this one alone."""
        if dist.is_available() and dist.is_initialized():
            return Processes(rank=dist.get_rank(), size=dist.get_world_size())
        return Processes(rank=0, size=1)

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all processes; the same to the bit on each."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def add(self, array: F64) -> F64:
        """Return the sum of an array over all processes."""
        summed: F64 = self.sum(torch.from_numpy(array)).numpy()
        return summed

    def largest(self, array: F64) -> F64:
        """Return the elementwise maximum over all processes."""
        if self.size == 1:
            return array
        total = torch.from_numpy(array.copy())
        dist.all_reduce(total, op=dist.ReduceOp.MAX)
        result: F64 = total.numpy()
        return result

    def gather(self, array: F64) -> F64:
        """Return the arrays of all processes, one after the other."""
        if self.size == 1:
            return array
        before, total = self.first_row(len(array))
        everything = np.zeros(total)
        everything[before : before + len(array)] = array
        return self.add(everything)

    def first_row(self, n: int) -> tuple[int, int]:
        """Return the number of rows before this process's own, and of all."""
        counts = np.zeros(self.size)
        counts[self.rank] = n
        counts = self.add(counts)
        return int(counts[: self.rank].sum()), int(counts.sum())
