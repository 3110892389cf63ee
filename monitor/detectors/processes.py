"""Detectors: sums over the processes of a fit, under torchrun or alone."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

F64 = NDArray[np.float64]

_SIGN = 1 << 63
_ALL = (1 << 64) - 1


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

    def quantile(self, array: F64, share: float) -> float:
        """Return the quantile of the values of all processes, as numpy interpolates it; no process sees all."""
        if self.size == 1:
            return float(np.quantile(array, share))
        place = share * (self.first_row(len(array))[1] - 1)
        rank = int(place)
        low = self.smallest(array, rank)
        return low if place == rank else low + (self.smallest(array, rank + 1) - low) * (place - rank)

    def smallest(self, array: F64, rank: int) -> float:
        """Return the value of all processes that `rank` others precede: its eight bytes, counted one by one."""
        keys = _ordered(array)
        found = 0
        for shift in range(56, -1, -8):
            digits = (keys >> np.uint64(shift)) & np.uint64(255)
            upto = np.cumsum(self.add(np.bincount(digits.astype(np.intp), minlength=256).astype(np.float64)))
            digit = int(np.searchsorted(upto, rank, side="right"))
            rank -= int(upto[digit - 1]) if digit else 0
            keys = keys[digits == digit]
            found |= digit << shift
        bits = found ^ _SIGN if found & _SIGN else ~found & _ALL
        return float(np.array([bits], dtype=np.uint64).view(np.float64)[0])

    def first_row(self, n: int) -> tuple[int, int]:
        """Return the number of rows before this process's own, and of all."""
        counts = np.zeros(self.size)
        counts[self.rank] = n
        counts = self.add(counts)
        return int(counts[: self.rank].sum()), int(counts.sum())


def _ordered(array: F64) -> NDArray[np.uint64]:
    """Return the numbers' bits as integers of the same order."""
    bits = np.ascontiguousarray(array, dtype=np.float64).view(np.uint64)
    return np.where(bits >= np.uint64(_SIGN), ~bits, bits | np.uint64(_SIGN))
