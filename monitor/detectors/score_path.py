"""Detectors: the scoring path, from rows to energies, the same to the bit however rows are batched.

With W_k the inverse Cholesky factor of component k and c a common centre, all ||W_k (x - mu_k)||^2 come
out of one matrix product with x - c. The product always has one fixed shape, the last rows padded, so
that no row's sums depend on its neighbours. Rows lie along the fast axis, and everything after the
product runs lane by lane.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.detectors.inputs import FloatArray

F64 = NDArray[np.float64]

LOG_2PI = float(np.log(2 * np.pi))
# Rounding of single precision, enlarged by more than this, would show in the fourth digit of an energy.
_SINGLE_LIMIT = 100.0
_LANE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """The cached factors of one mixture on one device."""

    centre: Tensor
    product: Tensor
    log_constant: Tensor
    k: int
    d: int
    rows: int
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the matrix product."""
        return self.product.dtype

    def energies(self, x: FloatArray) -> FloatArray:
        """Return the energy of each row, in the rows' own precision.

        Rows must be checked for their width. A row that holds NaN or infinity gives NaN.
        """
        out = np.empty(len(x), dtype=x.dtype)
        for at in range(0, len(x), self.rows):
            part = x[at : at + self.rows]
            out[at : at + len(part)] = self._chunk(torch.from_numpy(part)).cpu().numpy()
        return out

    def _chunk(self, part: Tensor) -> Tensor:
        n = len(part)
        padded = torch.zeros(self.d + 1, self.rows, dtype=self.dtype, device=self.device)
        padded[-1] = 1.0
        padded[:-1, :n] = (part.to(self.device) - self.centre).T
        v = (self.product @ padded).view(self.k, self.d, self.rows)
        log_joint = self.log_constant - 0.5 * v.square_().sum(1)
        return -torch.logsumexp(log_joint, dim=0)[:n]


def make_scorer(weights: F64, means: F64, inverse: F64, dtype: torch.dtype, device: str = "cpu") -> Scorer:
    """Return the scorer of a mixture.

    Args:
        weights: (K,) that sum to one.
        means: (K, D).
        inverse: (K, D, D), the inverse lower Cholesky factors.
        dtype: Of the rows to come.
        device: Where torch is to compute.
    """
    k, d = means.shape
    centre = weights @ means
    if dtype == torch.float32:
        centre = centre.astype(np.float32).astype(np.float64)
    offset = np.einsum("kij,kj->ki", inverse, means - centre)
    product = np.concatenate([inverse, -offset[:, :, None]], axis=2).reshape(k * d, d + 1)
    log_det = -2 * np.log(np.diagonal(inverse, axis1=1, axis2=2)).sum(1)
    with np.errstate(divide="ignore"):
        log_constant = np.log(weights) - 0.5 * (d * LOG_2PI + log_det)
    place = torch.device(device)
    wide = torch.float64 if _needs_double(weights, means, inverse, centre) else dtype
    return Scorer(
        centre=torch.from_numpy(centre).to(place, dtype),
        product=torch.from_numpy(product).to(place, wide),
        log_constant=torch.from_numpy(log_constant[:, None]).to(place, wide),
        k=k,
        d=d,
        rows=256,
        device=place,
    )


def _needs_double(weights: F64, means: F64, inverse: F64, centre: F64) -> bool:
    covariances = np.linalg.inv(np.swapaxes(inverse, 1, 2) @ inverse)
    spread = np.einsum("k,kjj->j", weights, covariances) + weights @ np.square(means - centre)
    enlarged = np.abs(inverse) @ np.sqrt(spread)
    return bool(enlarged.max() > _SINGLE_LIMIT)
