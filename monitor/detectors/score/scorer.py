"""Detectors: the scoring path, from rows to energies, the same to the bit however rows are batched.

With W_k the inverse Cholesky factor of component k and c a common centre, all ||W_k (x - mu_k)||^2 come
out of one matrix product with x - c, a constant row of ones carrying the offsets W_k (mu_k - c). The
product always has one fixed shape, the last rows padded, so that no row's sums depend on its neighbours;
up to 16 rows have a narrower shape where it gives the same bits, which is tried when the scorer is made.
Rows lie along the fast axis, where everything after the product runs lane by lane. From 32 features on
the product goes by block rows of the triangle, which leaves out most of its zeros. Where a chunk is work
enough, as many threads as torch may use take chunks in turn.
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

# A quarter of the digits that an energy in single precision promises (1e-4) are kept in reserve.
_MAX_SINGLE_PRECISION_ERROR = 2e-5
_SMALL_LANES = 16
_N_PROBES = 256
# From so many numbers in the triangles on a chunk takes a third of a millisecond, and threads do not wait for Python.
_MIN_CELLS_FOR_THREADS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureScorer:
    """The cached factors of one mixture on one device, for rows of one precision."""

    mixture: GaussianComponents
    lanes: int
    dtype: np.dtype[Any]
    device: str
    make_kernel: Callable[[], ScoreKernel]
    make_small_kernel: Callable[[], ScoreKernel] | None = None
    spare_kernels: list[ScoreKernel] = field(default_factory=list)
    spare_small_kernels: list[ScoreKernel] = field(default_factory=list)
    double_scorers: "list[MixtureScorer]" = field(default_factory=list)

    def energies(self, x: FloatArray, shares: FloatArray | None = None) -> FloatArray:
        """Return the energy of each row, in the rows' own precision, rounded once.

        Rows must be of the right width. Those that hold NaN or infinity give NaN; those so far away that
        the square of their distance has no number give the largest number there is.

        Args:
            x: The rows.
            shares: Filled, where it is given, with each component's share in each row, (n, K); with 0 for rows
                that are as far from all components as numbers go.
        """
        out = np.empty(len(x), dtype=x.dtype)
        if self.make_small_kernel is not None and len(x) <= _SMALL_LANES:
            _run_kernels(x, out, shares, self.spare_small_kernels, self.make_small_kernel, _SMALL_LANES)
        else:
            _run_kernels(x, out, shares, self.spare_kernels, self.make_kernel, self.lanes, self._helper_threads(len(x)))
        finite = np.isfinite(out)
        if not finite.all():
            out[~finite], far = self._rescore_in_double(x[~finite])
            if shares is not None:
                shares[~finite] = far
        return out

    def _helper_threads(self, n: int) -> int:
        """Return how many threads beside this one should take chunks: as many as torch may use, where it pays."""
        k, d = self.mixture.inverse.shape[:2]
        if self.device != "cpu" or self.mixture.inverse.ndim != 3 or k * d * d < _MIN_CELLS_FOR_THREADS:
            return 0
        return min(torch.get_num_threads(), n // self.lanes) - 1

    def _rescore_in_double(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Score again in double precision what had no number in single."""
        shares = np.zeros((len(rows), len(self.mixture.weights)))
        if rows.dtype == np.float64:
            energies: FloatArray = np.where(np.isfinite(rows).all(axis=1), np.inf, np.nan)
        else:
            if not self.double_scorers:
                self.double_scorers.append(make_scorer(self.mixture, np.float64, self.device))
            energies = self.double_scorers[0].energies(rows.astype(np.float64), shares)
        return np.minimum(energies, np.finfo(rows.dtype).max).astype(rows.dtype), shares


def _run_kernels(
    x: FloatArray,
    out: FloatArray,
    shares: FloatArray | None,
    spare: list[ScoreKernel],
    make: Callable[[], ScoreKernel],
    lanes: int,
    helpers: int = 0,
) -> None:
    chunks = iter(range(0, len(x), lanes))

    def score() -> None:
        # Taking a kernel with its buffers off the list is atomic, so threads never share one; so is taking a chunk.
        kernel = spare.pop() if spare else make()
        with np.errstate(over="ignore", invalid="ignore"):
            for at in chunks:
                part = x[at : at + lanes]
                kernel(part, out[at : at + len(part)], None if shares is None else shares[at : at + len(part)])
        spare.append(kernel)

    # The narrow shape is too small for a library to share out, and one event should not wait for the switch.
    with single_blas_thread if lanes > _SMALL_LANES else nullcontext():
        if helpers <= 0:
            score()
            return
        with ThreadPoolExecutor(helpers) as pool:
            others = [pool.submit(score) for _ in range(helpers)]
            score()
            for other in others:
                other.result()


def make_scorer(mixture: GaussianComponents, dtype: type[np.floating[Any]], device: str = "cpu") -> MixtureScorer:
    """Return the scorer of a mixture for rows of the given precision.

    float32 rows are scored in single precision where a probe with rows of the mixture shows that this
    keeps the energies within a fifth of the promised 1e-4, and in double precision elsewhere.
    """
    double = _build_scorer(mixture, np.float64, np.float64, device)
    if dtype != np.float32:
        return double
    single = _build_scorer(mixture, np.float32, np.float32, device)
    probes = _probe_rows(mixture, np.float32)
    truth = double.energies(probes.astype(np.float64))
    error = np.abs(single.energies(probes) - truth) / np.maximum(np.abs(truth), 1.0)
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
        mixture=mixture, lanes=factors.lanes, dtype=np.dtype(work), device=device, make_kernel=make_kernel
    )
    return scorer if place.type == "cuda" else _with_small_kernel(scorer, factors, work, rows)


def _with_small_kernel(
    scorer: MixtureScorer, factors: KernelFactors, work: type[np.floating[Any]], rows: type[np.floating[Any]]
) -> MixtureScorer:
    """Return the scorer with a second, narrow shape for a few rows, if this machine gives the same bits.

    Kernels of the libraries for the two shapes add in the same order as a rule, not by promise. So it is
    tried on the probes, and one differing bit keeps the one shape for all.
    """
    narrow = replace(factors, lanes=_SMALL_LANES)
    small = replace(
        scorer,
        make_small_kernel=lambda: CpuKernel(narrow, work),
        spare_kernels=[],
        spare_small_kernels=[],
        double_scorers=[],
    )
    probes = _probe_rows(scorer.mixture, rows)
    shares = np.empty((2, len(probes), len(scorer.mixture.weights)), rows)
    wide = scorer.energies(probes, shares[0])
    places = [slice(at, at + _SMALL_LANES) for at in range(0, _N_PROBES, _SMALL_LANES)]
    pieces = [small.energies(probes[place], shares[1][place]) for place in places]
    same = np.array_equal(np.concatenate(pieces), wide, equal_nan=True)
    return small if same and np.array_equal(shares[0], shares[1], equal_nan=True) else scorer


def _probe_rows(mixture: GaussianComponents, rows: type[np.floating[Any]]) -> FloatArray:
    """Return rows drawn from the mixture, and rows some deviations away from it, as far as the precision goes."""
    largest = float(np.finfo(rows).max)
    return _draw_rows(mixture).clip(-largest, largest).astype(rows)


def _draw_rows(mixture: GaussianComponents) -> F64:
    rng = np.random.default_rng(0)
    d = mixture.means.shape[1]
    alive = mixture.weights > 0
    place = rng.choice(np.flatnonzero(alive), _N_PROBES)
    noise = rng.standard_normal((_N_PROBES, d)) * np.where(np.arange(_N_PROBES) % 2, 1.0, 4.0)[:, None]
    if mixture.inverse.ndim == 2:
        scaled: F64 = mixture.means[place] + noise / mixture.inverse[place]
        return scaled
    shared = len(mixture.inverse) == 1
    away = np.empty((_N_PROBES, d))
    for component in np.unique(place):
        rows = place == component
        away[rows] = np.linalg.solve(mixture.inverse[0 if shared else component], noise[rows].T).T
    result: F64 = mixture.means[place] + away
    return result
