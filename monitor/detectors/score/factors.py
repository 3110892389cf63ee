"""Conversion of a mixture to the arrays of the scoring kernels.

From 32 features on the triangles are split into block rows, which skips most of their zeros.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

LOG_2PI = math.log(2 * math.pi)
_BLOCK_HEIGHT = 16
_MIN_FEATURES_FOR_BLOCKS = 32
# Bounds of the rows in a chunk: enough to fill the kernels, few enough for the cache and a short latency.
_CPU_CELLS = 1 << 16
_CPU_CHUNK_ROWS = (256, 1024)
_CUDA_CELLS = 1 << 24
_CUDA_CHUNK_ROWS = (1024, 1 << 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianComponents:
    """Parameters of a mixture for scoring, in float64: weights (K,), means (K, D), inverse factors.

    `inverse` holds the inverse lower Cholesky factors: (K, D, D); (1, D, D) when all components share one;
    (K, D) when they are diagonal.
    """

    weights: F64
    means: F64
    inverse: F64

    @property
    def log_constant(self) -> F64:
        """Return log phi_k - (D log 2 pi + log det Sigma_k) / 2 of each component, (K,)."""
        return log_constants(self.weights, self.inverse)


def log_constants(weights: F64, inverse: F64) -> F64:
    """Return log phi_k - (D log 2 pi + log det Sigma_k) / 2 of each component, (K,).

    `inverse` has one of the layouts of `GaussianComponents`.
    """
    diagonal = inverse if inverse.ndim == 2 else np.diagonal(inverse, axis1=1, axis2=2)
    with np.errstate(divide="ignore"):
        constants: F64 = np.log(weights) - 0.5 * inverse.shape[-1] * LOG_2PI + np.log(diagonal).sum(1)
    return constants


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFactors:
    """Arrays of a mixture in the layout of the kernels.

    `blocks` are the block rows of all scaled triangles, (K * height, columns + 1) each, with the offsets in
    the first column; or the one shared triangle; or the (K, D, 1) inverse deviations. For the last two,
    `offset` is a separate array. All arrays are scaled so that the sum of squares is half the squared
    distance. `chunk_rows` is the number of rows in a chunk.
    """

    centre: F64
    blocks: tuple[F64, ...]
    offset: F64 | None
    log_constant: F64
    chunk_rows: int

    @property
    def n_components(self) -> int:
        """The number of components."""
        return len(self.log_constant)

    @property
    def n_features(self) -> int:
        """The number of features."""
        return len(self.centre)


def make_kernel_factors(mixture: GaussianComponents, rows: type[np.floating[Any]], *, on_gpu: bool) -> KernelFactors:
    """Build the kernel arrays of a mixture for rows of the precision `rows`, and choose the chunk size."""
    k, d = mixture.means.shape
    # The centre must be representable in the rows' precision: then x - centre has one relative rounding error.
    centre = (mixture.weights @ mixture.means).astype(rows).astype(np.float64)
    inverse: F64 = mixture.inverse * math.sqrt(0.5)
    centred_means = mixture.means - centre
    blocks: list[F64]
    if inverse.ndim == 2:
        blocks, offset = [inverse[:, :, None]], (inverse * centred_means)[:, :, None]
    elif len(inverse) == 1 and k > 1:
        blocks, offset = [inverse[0]], (centred_means @ inverse[0].T)[:, :, None]
    else:
        blocks, offset = _block_rows(inverse, np.einsum("kij,kj->ki", inverse, centred_means)), None
    low, high = _CUDA_CHUNK_ROWS if on_gpu else _CPU_CHUNK_ROWS
    cells = _CUDA_CELLS if on_gpu else _CPU_CELLS
    chunk_rows = 1 << round(math.log2(max(1, cells // (k * d))))
    return KernelFactors(
        centre=centre,
        blocks=tuple(blocks),
        offset=offset,
        log_constant=mixture.log_constant,
        chunk_rows=min(max(chunk_rows, low), high),
    )


def _block_rows(inverse: F64, offset: F64) -> list[F64]:
    """Return the block rows of all lower triangles without trailing zeros, offsets in the first column."""
    k, d, _ = inverse.shape
    height = _BLOCK_HEIGHT if d >= _MIN_FEATURES_FOR_BLOCKS else d
    return [
        np.concatenate(
            [-offset[:, at : at + height, None], inverse[:, at : at + height, : min(at + height, d)]], axis=2
        ).reshape(k * min(height, d - at), -1)
        for at in range(0, d, height)
    ]
