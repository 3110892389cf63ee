"""Scorer of a mixture: rows to energies, identical to the bit in any batch.

With W_k the inverse Cholesky factor of component k and c a common centre, one matrix product with x - c
gives all ||W_k (x - mu_k)||^2; a constant row of ones carries the offsets W_k (mu_k - c). The product always
has one fixed shape, with padding behind the last row, so that the sums of a row do not depend on other rows.
Up to 16 rows use a narrower shape if it gives the same bits on this machine; a test at construction decides.
Rows lie along the fast axis, which the operations after the product are vectorised over. From 32 features on
the product is computed by block rows of the triangle, which skips most of its zeros. If the chunks are large
enough, as many threads as torch may use process them in parallel.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monitor.detectors.inputs.checks import FloatArray
from monitor.detectors.score.factors import GaussianComponents, KernelFactors, make_kernel_factors
from monitor.detectors.score.kernels import CpuKernel, CudaKernel, ScoreKernel
from monitor.detectors.score.threads import single_blas_thread

F64 = NDArray[np.float64]

# A fifth of the guaranteed relative error of an energy in single precision (1e-4), as a reserve.
_MAX_SINGLE_PRECISION_ERROR = 2e-5
_SMALL_CHUNK_ROWS = 16
_N_PROBES = 256
# From this many numbers in the triangles a chunk takes a third of a millisecond, and the GIL is no bottleneck.
_MIN_CELLS_FOR_THREADS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureScorer:
    """Scorer of one mixture on one device, for rows of one precision.

    Attributes:
        mixture: The mixture.
        chunk_rows: The number of rows in a chunk.
        dtype: The precision of the computation.
        device: The torch device.
        make_kernel: Builds a kernel with its buffers.
        make_small_kernel: Builds a kernel for up to 16 rows; None where it would give other bits.
        spare_kernels: Kernels that no thread uses at the moment.
        spare_small_kernels: The same for small kernels.
        double_scorers: The scorer in double precision, once a row has needed it.
    """

    mixture: GaussianComponents
    chunk_rows: int
    dtype: np.dtype[Any]
    device: str
    make_kernel: Callable[[], ScoreKernel]
    make_small_kernel: Callable[[], ScoreKernel] | None = None
    spare_kernels: list[ScoreKernel] = field(default_factory=list)
    spare_small_kernels: list[ScoreKernel] = field(default_factory=list)
    double_scorers: "list[MixtureScorer]" = field(default_factory=list)

    def energies(self, x: FloatArray, responsibilities: FloatArray | None = None) -> FloatArray:
        """Return the energy of each row, (n,), in nats, in the rows' own precision, rounded once.

        Rows with NaN or infinity give NaN. Rows with an overflowing squared distance give the largest number of
        the precision.

        Args:
            x: Rows (n, D); the width is not checked.
            responsibilities: Output array (n, K) for the responsibilities of the components, or None. Rows with
                an overflowing distance get 0.
        """
        out = np.empty(len(x), dtype=x.dtype)
        if self.make_small_kernel is not None and len(x) <= _SMALL_CHUNK_ROWS:
            _run_kernels(x, out, responsibilities, self.spare_small_kernels, self.make_small_kernel, _SMALL_CHUNK_ROWS)
        else:
            _run_kernels(
                x,
                out,
                responsibilities,
                self.spare_kernels,
                self.make_kernel,
                self.chunk_rows,
                self._helper_threads(len(x)),
            )
        finite = np.isfinite(out)
        if not finite.all():
            out[~finite], far_responsibilities = self._rescore_in_double(x[~finite])
            if responsibilities is not None:
                responsibilities[~finite] = far_responsibilities
        return out

    def _helper_threads(self, n: int) -> int:
        """Return the number of additional threads: as many as torch may use if the chunks are large, else 0."""
        k, d = self.mixture.inverse.shape[:2]
        if self.device != "cpu" or self.mixture.inverse.ndim != 3 or k * d * d < _MIN_CELLS_FOR_THREADS:
            return 0
        return min(torch.get_num_threads(), n // self.chunk_rows) - 1

    def _rescore_in_double(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Score the rows without a finite energy in single precision again, in double precision."""
        responsibilities = np.zeros((len(rows), len(self.mixture.weights)))
        if rows.dtype == np.float64:
            energies: FloatArray = np.where(np.isfinite(rows).all(axis=1), np.inf, np.nan)
        else:
            if not self.double_scorers:
                self.double_scorers.append(make_scorer(self.mixture, np.float64, self.device))
            energies = self.double_scorers[0].energies(rows.astype(np.float64), responsibilities)
        return np.minimum(energies, np.finfo(rows.dtype).max).astype(rows.dtype), responsibilities


def _run_kernels(
    x: FloatArray,
    out: FloatArray,
    responsibilities: FloatArray | None,
    spare_kernels: list[ScoreKernel],
    make_kernel: Callable[[], ScoreKernel],
    chunk_rows: int,
    helpers: int = 0,
) -> None:
    chunks = iter(range(0, len(x), chunk_rows))

    def score() -> None:
        # `pop` and `next` are atomic: two threads never share a kernel or a chunk.
        kernel = spare_kernels.pop() if spare_kernels else make_kernel()
        with np.errstate(over="ignore", invalid="ignore"):
            for at in chunks:
                part = x[at : at + chunk_rows]
                kernel(
                    part,
                    out[at : at + len(part)],
                    None if responsibilities is None else responsibilities[at : at + len(part)],
                )
        spare_kernels.append(kernel)

    # Libraries do not split the narrow shape over threads, and switching the thread count would delay one event.
    with single_blas_thread if chunk_rows > _SMALL_CHUNK_ROWS else nullcontext():
        if helpers <= 0:
            score()
            return
        with ThreadPoolExecutor(helpers) as pool:
            futures = [pool.submit(score) for _ in range(helpers)]
            score()
            for future in futures:
                future.result()


def make_scorer(mixture: GaussianComponents, dtype: type[np.floating[Any]], device: str = "cpu") -> MixtureScorer:
    """Build the scorer of a mixture for rows of the given precision.

    float32 rows are scored in single precision if the energies of rows drawn from the mixture are within a
    fifth of the guaranteed relative error of 1e-4, otherwise in double precision.
    """
    double = _build_scorer(mixture, np.float64, np.float64, device)
    if dtype != np.float32:
        return double
    single = _build_scorer(mixture, np.float32, np.float32, device)
    probes = _probe_rows(mixture, np.float32)
    exact = double.energies(probes.astype(np.float64))
    error = np.abs(single.energies(probes) - exact) / np.maximum(np.abs(exact), 1.0)
    return (
        single if error.max() < _MAX_SINGLE_PRECISION_ERROR else _build_scorer(mixture, np.float64, np.float32, device)
    )


def _build_scorer(
    mixture: GaussianComponents, work: type[np.floating[Any]], rows: type[np.floating[Any]], device: str
) -> MixtureScorer:
    place = torch.device(device)
    factors = make_kernel_factors(mixture, rows, on_gpu=place.type == "cuda")

    def make_kernel() -> ScoreKernel:
        if place.type == "cuda":
            return CudaKernel(factors, torch.float32 if work == np.float32 else torch.float64, device)
        return CpuKernel(factors, work)

    scorer = MixtureScorer(
        mixture=mixture, chunk_rows=factors.chunk_rows, dtype=np.dtype(work), device=device, make_kernel=make_kernel
    )
    return scorer if place.type == "cuda" else _with_small_kernel(scorer, factors, work, rows)


def _with_small_kernel(
    scorer: MixtureScorer, factors: KernelFactors, work: type[np.floating[Any]], rows: type[np.floating[Any]]
) -> MixtureScorer:
    """Return the scorer with a second, narrow shape for up to 16 rows, if it gives the same bits on this machine.

    Library kernels for the two shapes usually add in the same order, but without a guarantee. The probe rows
    test it; a single differing bit keeps the wide shape for all rows.
    """
    narrow = replace(factors, chunk_rows=_SMALL_CHUNK_ROWS)
    small = replace(
        scorer,
        make_small_kernel=lambda: CpuKernel(narrow, work),
        spare_kernels=[],
        spare_small_kernels=[],
        double_scorers=[],
    )
    probes = _probe_rows(scorer.mixture, rows)
    responsibilities = np.empty((2, len(probes), len(scorer.mixture.weights)), rows)
    expected = scorer.energies(probes, responsibilities[0])
    chunks = [slice(at, at + _SMALL_CHUNK_ROWS) for at in range(0, _N_PROBES, _SMALL_CHUNK_ROWS)]
    pieces = [small.energies(probes[place], responsibilities[1][place]) for place in chunks]
    same = np.array_equal(np.concatenate(pieces), expected, equal_nan=True)
    return small if same and np.array_equal(responsibilities[0], responsibilities[1], equal_nan=True) else scorer


def _probe_rows(mixture: GaussianComponents, rows: type[np.floating[Any]]) -> FloatArray:
    """Return rows from the mixture, half of them with four times its deviation, clipped to the precision's range."""
    largest = float(np.finfo(rows).max)
    return _draw_rows(mixture).clip(-largest, largest).astype(rows)


def _draw_rows(mixture: GaussianComponents) -> F64:
    """Draw the probe rows in float64; even rows have four times the deviation of the components."""
    rng = np.random.default_rng(0)
    d = mixture.means.shape[1]
    has_weight = mixture.weights > 0
    place = rng.choice(np.flatnonzero(has_weight), _N_PROBES)
    noise = rng.standard_normal((_N_PROBES, d)) * np.where(np.arange(_N_PROBES) % 2, 1.0, 4.0)[:, None]
    if mixture.inverse.ndim == 2:
        scaled: F64 = mixture.means[place] + noise / mixture.inverse[place]
        return scaled
    shared = len(mixture.inverse) == 1
    offsets = np.empty((_N_PROBES, d))
    for component in np.unique(place):
        rows = place == component
        offsets[rows] = np.linalg.solve(mixture.inverse[0 if shared else component], noise[rows].T).T
    result: F64 = mixture.means[place] + offsets
    return result
