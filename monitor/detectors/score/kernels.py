"""Detectors: the kernels that turn rows into energies, on the processor and on a GPU."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from monitor.detectors.inputs.checks import FloatArray
from monitor.detectors.score.factors import KernelFactors
from monitor.detectors.score.threads import full_precision_matmul

# Up to this many columns OpenBLAS and MKL sum a row in one go; beyond, where they cut depends on threads.
_MAX_PRODUCT_DEPTH = 192
# With so few lanes the calls cost as much as the numbers: all block rows are squared and summed at once.
_FEW_LANES = 16


class ScoreKernel(Protocol):
    """Turns up to `lanes` rows into energies, always by the same operations on arrays of one shape."""

    def __call__(self, part: FloatArray, out: FloatArray, shares: FloatArray | None) -> None:
        """Write the energies of the rows `part` to `out`, and the components' shares (n, K) where they are wanted."""
        ...


class CpuKernel:
    """The kernel for the processor, in numpy: its calls cost less than torch's and run as fast."""

    def __init__(self, factors: KernelFactors, work: type[np.floating[Any]]) -> None:
        self.blocks = [block.astype(work) for block in factors.blocks]
        self.offset = None if factors.offset is None else factors.offset.astype(work)
        self.centre = factors.centre[:, None].astype(work)
        self.log_constant = factors.log_constant[:, None].astype(work)
        k, d, lanes = factors.n_components, factors.n_features, factors.lanes
        self.rows = np.zeros((d + 1, lanes), dtype=work)
        self.rows[0] = 1.0
        self.whole: FloatArray | None = None
        if self.offset is not None:
            self.white = [np.empty((k, d, lanes), dtype=work)]
        elif lanes <= _FEW_LANES and len({len(block) for block in self.blocks}) == 1:
            self.whole = np.empty((len(self.blocks), k, len(self.blocks[0]) // k, lanes), dtype=work)
            self.sums = np.empty((len(self.blocks), k, lanes), dtype=work)
            self.white = [white.reshape(-1, lanes) for white in self.whole]
        else:
            self.white = [np.empty((len(block), lanes), dtype=work) for block in self.blocks]
        self.cells = [white.reshape(k, -1, lanes) for white in self.white]
        self.half = np.empty((k, lanes), dtype=work)
        self.part = np.empty((k, lanes), dtype=work)
        self.top = np.empty(lanes, dtype=work)
        self.sum = np.empty(lanes, dtype=work)

    def __call__(self, part: FloatArray, out: FloatArray, shares: FloatArray | None) -> None:
        """Write the energies of the rows `part` to `out`, and the components' shares where they are wanted."""
        n = len(part)
        np.subtract(part.T, self.centre, out=self.rows[1:, :n])
        if self.offset is None:
            self._square_triangles()
        else:
            self._square_shared_or_diagonal(self.offset)
        half, top, total = self.half, self.top, self.sum
        np.subtract(self.log_constant, half, out=half)
        if len(half) == 1:
            np.negative(half[0, :n], out=out)
            if shares is not None:
                shares[:] = 1
            return
        np.maximum.reduce(half, axis=0, out=top)
        np.subtract(half, top, out=half)
        np.exp(half, out=half)
        np.add.reduce(half, axis=0, out=total)
        if shares is not None:
            np.divide(half, total, out=half)
            shares[:] = half[:, :n].T
        np.log(total, out=total)
        np.add(total, top, out=total)
        np.negative(total[:n], out=out, casting="same_kind")

    def _square_triangles(self) -> None:
        if self.whole is not None:
            for block, white in zip(self.blocks, self.white, strict=True):
                _matrix_product(block, self.rows, white)
            np.multiply(self.whole, self.whole, out=self.whole)
            np.add.reduce(self.whole, axis=2, out=self.sums)
            np.add.reduce(self.sums, axis=0, out=self.half)
            return
        for i, (block, white, cells) in enumerate(zip(self.blocks, self.white, self.cells, strict=True)):
            _matrix_product(block, self.rows, white)
            np.multiply(white, white, out=white)
            np.add.reduce(cells, axis=1, out=self.part if i else self.half)
            if i:
                np.add(self.half, self.part, out=self.half)

    def _square_shared_or_diagonal(self, offset: FloatArray) -> None:
        (block,), (white,) = self.blocks, self.white
        if block.ndim == 3:
            np.multiply(self.rows[1:], block, out=white)
            np.subtract(white, offset, out=white)
        else:
            base = np.empty((len(block), self.rows.shape[1]), dtype=self.rows.dtype)
            _matrix_product(block, self.rows[1:], base)
            np.subtract(base, offset, out=white)
        np.multiply(white, white, out=white)
        np.add.reduce(white, axis=1, out=self.half)


def _matrix_product(block: FloatArray, rows: FloatArray, out: FloatArray) -> None:
    """Write block @ rows[:columns] to `out`, in pieces of a depth that no library cuts again."""
    np.dot(block[:, :_MAX_PRODUCT_DEPTH], rows[: min(_MAX_PRODUCT_DEPTH, block.shape[1])], out=out)
    for at in range(_MAX_PRODUCT_DEPTH, block.shape[1], _MAX_PRODUCT_DEPTH):
        piece = block[:, at : at + _MAX_PRODUCT_DEPTH]
        out += np.dot(piece, rows[at : at + piece.shape[1]])


class CudaKernel:
    """The kernel for a GPU, in torch: the same operations on wider chunks."""

    def __init__(self, factors: KernelFactors, work: torch.dtype, device: str) -> None:
        kind: dict[str, Any] = {"dtype": work, "device": device}
        self.blocks = [torch.as_tensor(block, **kind) for block in factors.blocks]
        self.offset = None if factors.offset is None else torch.as_tensor(factors.offset, **kind)
        self.centre = torch.as_tensor(factors.centre[:, None], **kind)
        self.log_constant = torch.as_tensor(factors.log_constant[:, None], **kind)
        self.rows = torch.zeros(factors.n_features + 1, factors.lanes, **kind)
        self.rows[0] = 1.0
        self.k = factors.n_components

    def __call__(self, part: FloatArray, out: FloatArray, shares: FloatArray | None) -> None:
        """Write the energies of the rows `part` to `out`, and the components' shares where they are wanted."""
        n = len(part)
        host = torch.from_numpy(part if part.flags.writeable else part.copy())
        torch.sub(host.to(self.rows.device).T, self.centre, out=self.rows[1:, :n])
        with full_precision_matmul():
            half = self._square_triangles() if self.offset is None else self._square_shared_or_diagonal(self.offset)
        joint = self.log_constant - half
        log_density = torch.logsumexp(joint, dim=0)
        out[:] = log_density[:n].neg().to("cpu").numpy()
        if shares is not None:
            shares[:] = torch.exp(joint - log_density)[:, :n].T.to("cpu").numpy()

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
