"""EM iterations over chunks of rows, on one process or several."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.detectors.fit import em
from monitor.detectors.fit.em import CholeskyFactors, Mixture, Moments
from monitor.detectors.fit.process_group import ProcessGroup
from monitor.detectors.fit.rows import StandardisedRows
from monitor.detectors.fit.settings import FitSettings

F64 = NDArray[np.float64]
Progress = Callable[[int, float], None]

# With a larger amplification, the rounding error of a float32 row approaches a hundredth of a standard deviation.
_MAX_FLOAT32_AMPLIFICATION = 3e4
_MIN_COMPONENT_ROWS = 0.5
_MIN_LOG_DENSITY = -1e300  # stands for -inf in log densities; differences from other values stay finite


@dataclass(frozen=True, slots=True, kw_only=True)
class FitContext:
    """Settings, shrinkage and process group of one fit."""

    settings: FitSettings
    shrinkage: em.Shrinkage
    processes: ProcessGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class EMResult:
    """Result of one run of EM.

    Attributes:
        mixture: The last mixture.
        mass: The number of rows of each component, (K,).
        log_likelihoods: The mean log-likelihood at every pass.
        converged: Whether the tolerance was reached.
        n_trimmed: The number of rows left out of the last pass, over all processes.
    """

    mixture: Mixture
    mass: Tensor
    log_likelihoods: tuple[float, ...]
    converged: bool
    n_trimmed: int

    @property
    def log_likelihood(self) -> float:
        """The last mean log-likelihood."""
        return self.log_likelihoods[-1]


def expectation_maximisation(
    rows: StandardisedRows, mixture: Mixture, context: FitContext, progress: Progress | None, passes: int | None = None
) -> EMResult:
    """Alternate E and M steps until the mean log-likelihood changes by less than the tolerance.

    With contamination, every iteration begins with a concentration step: an additional pass that finds the rows with
    the largest energies under the current mixture. Energies under the previous mixture could mark all rows.

    Args:
        rows: The standardised rows of this process.
        mixture: The initial mixture.
        context: Settings, shrinkage and process group.
        progress: Called after every pass with its number and the mean log-likelihood, or None.
        passes: The maximum number of passes, if below `max_iter`.
    """
    settings = context.settings
    log_likelihoods: list[float] = []
    n_trimmed = 0
    converged = False
    mass = mixture.weights
    max_passes = settings.max_iter if passes is None else min(passes, settings.max_iter)
    factors = em.factorise(mixture)
    while len(log_likelihoods) < max_passes and not converged:
        included_rows, n_trimmed = trim_rows(rows, factors, context)
        moments = e_step(included_rows, factors)
        moments = moments.unflatten(context.processes.sum_tensor(moments.flatten()))
        log_likelihoods.append(float(moments.log_likelihood[0] / moments.log_likelihood[1]))
        if progress is not None:
            progress(len(log_likelihoods), log_likelihoods[-1])
        converged = len(log_likelihoods) >= 2 and abs(log_likelihoods[-1] - log_likelihoods[-2]) < settings.tol
        mixture, mass = m_step(mixture, factors, moments, context)
        before, factors = factors, em.factorise(mixture)
        if included_rows is rows and len(mass) == len(moments.mass):
            # The next pass gains at most twice this. It is unnecessary if that is below the tolerance.
            gain = em.expected_gain(before, moments, mixture, factors)
            converged = converged or 2 * abs(gain) < settings.tol
    return EMResult(
        mixture=mixture, mass=mass, log_likelihoods=tuple(log_likelihoods), converged=converged, n_trimmed=n_trimmed
    )


def e_step(rows: StandardisedRows, factors: CholeskyFactors, dtype: torch.dtype | None = None) -> Moments:
    """Return the moments of the included rows, in the given precision or that of `pass_dtype`."""
    k, d = factors.offset.shape
    if dtype is None:
        dtype = pass_dtype(factors)
    total = Moments.zeros(k, d)
    pass_factors = em.cast_factors(factors, dtype)
    for _, z, w in rows.iter_chunks(em.chunk_rows(k, d), dtype):
        em.accumulate_moments(z, pass_factors, w, total)
    return total


def log_densities(rows: StandardisedRows, factors: CholeskyFactors) -> F64:
    """Return the log density of each row; `_MIN_LOG_DENSITY` where it is not finite."""
    k, d = factors.offset.shape
    dtype = pass_dtype(factors)
    pass_factors = em.cast_factors(factors, dtype)
    log_density = np.empty(len(rows.values))
    for chunk, z, _ in rows.iter_chunks(em.chunk_rows(k, d), dtype):
        log_density[chunk] = torch.logsumexp(em.whiten(z, pass_factors)[1], dim=0).double().numpy()
    return np.maximum(np.nan_to_num(log_density, copy=False, nan=_MIN_LOG_DENSITY), _MIN_LOG_DENSITY)


def trim_rows(rows: StandardisedRows, factors: CholeskyFactors, context: FitContext) -> tuple[StandardisedRows, int]:
    """Exclude the rows with the lowest densities, a fraction of `contamination`.

    Returns:
        The rows with the mask of the others, and the number of excluded rows over all processes.
    """
    contamination = context.settings.contamination
    if contamination == 0:
        return rows, 0
    density = log_densities(rows, factors)
    positive_weight_density = density if rows.weights is None else density[rows.weights.numpy() > 0]
    included = density >= context.processes.quantile(positive_weight_density, contamination)
    n_excluded = context.processes.sum_array(np.array([(~included).sum()], dtype=np.float64))
    return rows.with_included(included), int(n_excluded[0])


def pass_dtype(factors: CholeskyFactors) -> torch.dtype:
    """Return the precision in which a pass has sufficiently small rounding errors."""
    return torch.float32 if em.rounding_amplification(factors) < _MAX_FLOAT32_AMPLIFICATION else torch.float64


def refine_in_float64(rows: StandardisedRows, result: EMResult, context: FitContext) -> EMResult:
    """Return the result after one more EM iteration in float64, for float64 events."""
    factors = em.factorise(result.mixture)
    included_rows, _ = trim_rows(rows, factors, context)
    moments = e_step(included_rows, factors, torch.float64)
    moments = moments.unflatten(context.processes.sum_tensor(moments.flatten()))
    mixture, mass = m_step(result.mixture, factors, moments, context)
    return replace(result, mixture=mixture, mass=mass)


def m_step(mixture: Mixture, factors: CholeskyFactors, moments: Moments, context: FitContext) -> tuple[Mixture, Tensor]:
    """Return the next mixture without empty components, and the number of rows of each component.

    The largest component always stays, even if the total weight of the rows is small.
    """
    updated = em.maximise_likelihood(mixture, factors, moments)
    rows = moments.mass / moments.mass.sum() * moments.log_likelihood[1]
    alive = rows >= rows.max().clamp_max(_MIN_COMPONENT_ROWS)
    if not bool(alive.all()):
        updated, rows = em.keep_components(updated, alive), rows[alive]
    return em.shrink_covariances(updated, rows, context.settings.covariance_type, context.shrinkage), rows
