"""Reductions over the processes of a fit, under torchrun or in a single process."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

F64 = NDArray[np.float64]

_SIGN_BIT = 1 << 63
_ALL_BITS = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessGroup:
    """Processes that share a fit. Each has its own rows, and all get the same mixture."""

    rank: int
    size: int

    @staticmethod
    def current() -> "ProcessGroup":
        """Return the initialised torch.distributed group, or a group of this process only."""
        if dist.is_available() and dist.is_initialized():
            return ProcessGroup(rank=dist.get_rank(), size=dist.get_world_size())
        return ProcessGroup(rank=0, size=1)

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """Return the sum over all processes; bit-identical on each of them."""
        if self.size == 1:
            return tensor
        return _all_reduce(tensor, dist.ReduceOp.SUM)

    def sum_array(self, array: F64) -> F64:
        """Return the sum of an array over all processes."""
        summed: F64 = self.sum_tensor(torch.from_numpy(array)).numpy()
        return summed

    def max_array(self, array: F64) -> F64:
        """Return the elementwise maximum over all processes."""
        if self.size == 1:
            return array
        largest: F64 = _all_reduce(torch.from_numpy(array), dist.ReduceOp.MAX).numpy()
        return largest

    def quantile(self, array: F64, share: float) -> float:
        """Return the quantile of the values of all processes, interpolated as in numpy, without gathering them."""
        if self.size == 1:
            return float(np.quantile(array, share))
        position = share * (self.row_offset(len(array))[1] - 1)
        rank = int(position)
        low = self.value_at_rank(array, rank)
        return low if position == rank else low + (self.value_at_rank(array, rank + 1) - low) * (position - rank)

    def value_at_rank(self, array: F64, rank: int) -> float:
        """Return the order statistic `rank` (from 0) over all processes, by a radix search over its eight bytes."""
        keys = _order_preserving_keys(array)
        key = 0
        for shift in range(56, -1, -8):
            digits = (keys >> np.uint64(shift)) & np.uint64(255)
            cumulative = np.cumsum(
                self.sum_array(np.bincount(digits.astype(np.intp), minlength=256).astype(np.float64))
            )
            digit = int(np.searchsorted(cumulative, rank, side="right"))
            rank -= int(cumulative[digit - 1]) if digit else 0
            keys = keys[digits == digit]
            key |= digit << shift
        bits = key ^ _SIGN_BIT if key & _SIGN_BIT else ~key & _ALL_BITS
        return float(np.array([bits], dtype=np.uint64).view(np.float64)[0])

    def row_offset(self, n: int) -> tuple[int, int]:
        """Return the number of rows on the processes of lower rank, and on all processes."""
        counts = np.zeros(self.size)
        counts[self.rank] = n
        counts = self.sum_array(counts)
        return int(counts[: self.rank].sum()), int(counts.sum())


def _all_reduce(tensor: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
    """Return the reduction over all processes of a tensor on the CPU.

    Some backends, such as NCCL, take tensors on a GPU only: theirs are copied to this process's current GPU and back.
    """
    on_cpu = "cpu:" in str(dist.get_backend_config())
    total = tensor.clone() if on_cpu else tensor.to("cuda")
    dist.all_reduce(total, op=operation)
    return total.cpu()


def _order_preserving_keys(array: F64) -> NDArray[np.uint64]:
    """Return the bits of the numbers as unsigned integers with the same order."""
    bits = np.ascontiguousarray(array, dtype=np.float64).view(np.uint64)
    return np.where(bits >= np.uint64(_SIGN_BIT), ~bits, bits | np.uint64(_SIGN_BIT))
