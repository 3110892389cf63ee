"""Kernels that compute the energies of rows, on the CPU and on a GPU."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from monitor.detectors.inputs.checks import FloatArray
from monitor.detectors.score.factors import KernelFactors
from monitor.detectors.score.threads import full_precision_matmul

# Up to this many columns OpenBLAS and MKL sum a row in one piece; beyond, the split depends on the thread count.
_MAX_PRODUCT_DEPTH = 192
# With this few rows the call overhead dominates: all block rows are squared and summed in one call.
_SMALL_CHUNK_ROWS = 16


class ScoreKernel(Protocol):
    """Computes the energies of up to `chunk_rows` rows, always with the same operations on arrays of one shape."""

    def __call__(self, part: FloatArray, out: FloatArray, responsibilities: FloatArray | None) -> None:
        """Write the energies of the rows `part` to `out`, and fill `responsibilities`, (n, K), unless it is None."""
        ...


class CpuKernel:
    """Kernel for the CPU, in numpy: the calls have less overhead than torch's and run as fast."""

    def __init__(self, factors: KernelFactors, dtype: type[np.floating[Any]]) -> None:
        self.blocks = [block.astype(dtype) for block in factors.blocks]
        self.offset = None if factors.offset is None else factors.offset.astype(dtype)
        self.centre = factors.centre[:, None].astype(dtype)
        self.log_constant = factors.log_constant[:, None].astype(dtype)
        k, d, chunk_rows = factors.n_components, factors.n_features, factors.chunk_rows
        self.rows = np.zeros((d + 1, chunk_rows), dtype=dtype)
        self.rows[0] = 1.0
        self.all_blocks: FloatArray | None = None
        if self.offset is not None:
            self.whitened = [np.empty((k, d, chunk_rows), dtype=dtype)]
        elif chunk_rows <= _SMALL_CHUNK_ROWS and len({len(block) for block in self.blocks}) == 1:
            self.all_blocks = np.empty((len(self.blocks), k, len(self.blocks[0]) // k, chunk_rows), dtype=dtype)
            self.sums = np.empty((len(self.blocks), k, chunk_rows), dtype=dtype)
            self.whitened = [whitened.reshape(-1, chunk_rows) for whitened in self.all_blocks]
        else:
            self.whitened = [np.empty((len(block), chunk_rows), dtype=dtype) for block in self.blocks]
        self.cells = [whitened.reshape(k, -1, chunk_rows) for whitened in self.whitened]
        self.half_squares = np.empty((k, chunk_rows), dtype=dtype)
        self.part = np.empty((k, chunk_rows), dtype=dtype)
        self.largest = np.empty(chunk_rows, dtype=dtype)
        self.sum = np.empty(chunk_rows, dtype=dtype)

    def __call__(self, part: FloatArray, out: FloatArray, responsibilities: FloatArray | None) -> None:
        """Write the energies of the rows `part` to `out`, and fill `responsibilities` unless it is None."""
        n = len(part)
        np.subtract(part.T, self.centre, out=self.rows[1:, :n])
        if self.offset is None:
            self._square_triangles()
        else:
            self._square_shared_or_diagonal(self.offset)
        half_squares, largest, total = self.half_squares, self.largest, self.sum
        np.subtract(self.log_constant, half_squares, out=half_squares)
        if len(half_squares) == 1:
            np.negative(half_squares[0, :n], out=out)
            if responsibilities is not None:
                responsibilities[:] = 1
            return
        np.maximum.reduce(half_squares, axis=0, out=largest)
        np.subtract(half_squares, largest, out=half_squares)
        np.exp(half_squares, out=half_squares)
        np.add.reduce(half_squares, axis=0, out=total)
        if responsibilities is not None:
            np.divide(half_squares, total, out=half_squares)
            responsibilities[:] = half_squares[:, :n].T
        np.log(total, out=total)
        np.add(total, largest, out=total)
        np.negative(total[:n], out=out, casting="same_kind")

    def _square_triangles(self) -> None:
        if self.all_blocks is not None:
            for block, whitened in zip(self.blocks, self.whitened, strict=True):
                _matrix_product(block, self.rows, whitened)
            np.multiply(self.all_blocks, self.all_blocks, out=self.all_blocks)
            np.add.reduce(self.all_blocks, axis=2, out=self.sums)
            np.add.reduce(self.sums, axis=0, out=self.half_squares)
            return
        for i, (block, whitened, cells) in enumerate(zip(self.blocks, self.whitened, self.cells, strict=True)):
            _matrix_product(block, self.rows, whitened)
            np.multiply(whitened, whitened, out=whitened)
            np.add.reduce(cells, axis=1, out=self.part if i else self.half_squares)
            if i:
                np.add(self.half_squares, self.part, out=self.half_squares)

    def _square_shared_or_diagonal(self, offset: FloatArray) -> None:
        (block,), (whitened,) = self.blocks, self.whitened
        if block.ndim == 3:
            np.multiply(self.rows[1:], block, out=whitened)
            np.subtract(whitened, offset, out=whitened)
        else:
            base = np.empty((len(block), self.rows.shape[1]), dtype=self.rows.dtype)
            _matrix_product(block, self.rows[1:], base)
            np.subtract(base, offset, out=whitened)
        np.multiply(whitened, whitened, out=whitened)
        np.add.reduce(whitened, axis=1, out=self.half_squares)


def _matrix_product(block: FloatArray, rows: FloatArray, out: FloatArray) -> None:
    """Write block @ rows[:columns] to `out`, in pieces of a depth that libraries do not split."""
    np.dot(block[:, :_MAX_PRODUCT_DEPTH], rows[: min(_MAX_PRODUCT_DEPTH, block.shape[1])], out=out)
    for at in range(_MAX_PRODUCT_DEPTH, block.shape[1], _MAX_PRODUCT_DEPTH):
        piece = block[:, at : at + _MAX_PRODUCT_DEPTH]
        out += np.dot(piece, rows[at : at + piece.shape[1]])


class CudaKernel:
    """Kernel for a GPU, in torch: the same operations on larger chunks."""

    def __init__(self, factors: KernelFactors, dtype: torch.dtype, device: str) -> None:
        kind: dict[str, Any] = {"dtype": dtype, "device": device}
        self.blocks = [torch.as_tensor(block, **kind) for block in factors.blocks]
        self.offset = None if factors.offset is None else torch.as_tensor(factors.offset, **kind)
        self.centre = torch.as_tensor(factors.centre[:, None], **kind)
        self.log_constant = torch.as_tensor(factors.log_constant[:, None], **kind)
        self.rows = torch.zeros(factors.n_features + 1, factors.chunk_rows, **kind)
        self.rows[0] = 1.0
        self.k = factors.n_components

    def __call__(self, part: FloatArray, out: FloatArray, responsibilities: FloatArray | None) -> None:
        """Write the energies of the rows `part` to `out`, and fill `responsibilities` unless it is None."""
        n = len(part)
        host = torch.from_numpy(part if part.flags.writeable else part.copy())
        torch.sub(host.to(self.rows.device).T, self.centre, out=self.rows[1:, :n])
        with full_precision_matmul():
            half_squares = (
                self._square_triangles() if self.offset is None else self._square_shared_or_diagonal(self.offset)
            )
        joint = self.log_constant - half_squares
        log_density = torch.logsumexp(joint, dim=0)
        out[:] = log_density[:n].neg().to("cpu").numpy()
        if responsibilities is not None:
            # Not exp(joint - log_density): far from all components, the rounding of log_density exceeds log K.
            responsibilities[:] = torch.softmax(joint, dim=0)[:, :n].T.to("cpu").numpy()

    def _square_triangles(self) -> Tensor:
        squares = [
            torch.mm(block, self.rows[: block.shape[1]]).square_().view(self.k, -1, self.rows.shape[1]).sum(1)
            for block in self.blocks
        ]
        return torch.stack(squares).sum(0)

    def _square_shared_or_diagonal(self, offset: Tensor) -> Tensor:
        (block,) = self.blocks
        base = self.rows[1:] * block if block.dim() == 3 else block @ self.rows[1:]
        return (base - offset).square_().sum(1)
