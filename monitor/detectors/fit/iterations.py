"""Detectors: the iterations of EM over rows in chunks, on one process or several."""

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

# Beyond this a float32 row's rounding, enlarged by the factors, would come near a hundredth of a deviation.
_MAX_FLOAT32_AMPLIFICATION = 3e4
_MIN_COMPONENT_ROWS = 0.5
_MIN_LOG_DENSITY = (
    -1e300
)  # the log density of rows too far away for any: numbers can still be taken between it and others


@dataclass(frozen=True, slots=True, kw_only=True)
class FitContext:
    """What every M step of one fit shares."""

    settings: FitSettings
    shrinkage: em.Shrinkage
    processes: ProcessGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class EMResult:
    """Where one run of EM ended."""

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
    rows: StandardisedRows, mixture: Mixture, task: FitContext, progress: Progress | None, passes: int | None = None
) -> EMResult:
    """Alternate E and M steps until the mean log-likelihood moves by less than the tolerance.

    With contamination each step begins with a pass that tells which rows are the strangest under the present
    mixture (a concentration step): by the energies of an earlier mixture, all rows might be.
    """
    plan = task.settings
    trace: list[float] = []
    trimmed = 0
    converged = False
    mass = mixture.weights
    most = plan.max_iter if passes is None else min(passes, plan.max_iter)
    factors = em.factorise(mixture)
    while len(trace) < most and not converged:
        kept, trimmed = trim_rows(rows, factors, task)
        moments = e_step(kept, factors)
        moments = moments.unflatten(task.processes.sum_tensor(moments.flatten()))
        trace.append(float(moments.log_likelihood[0] / moments.log_likelihood[1]))
        if progress is not None:
            progress(len(trace), trace[-1])
        converged = len(trace) >= 2 and abs(trace[-1] - trace[-2]) < plan.tol
        mixture, mass = m_step(mixture, factors, moments, task)
        before, factors = factors, em.factorise(mixture)
        if kept is rows and len(mass) == len(moments.mass):
            # The next pass would find no more than twice this gain: it can be spared.
            gain = em.expected_gain(before, moments, mixture, factors)
            converged = converged or 2 * abs(gain) < plan.tol
    return EMResult(mixture=mixture, mass=mass, log_likelihoods=tuple(trace), converged=converged, n_trimmed=trimmed)


def e_step(rows: StandardisedRows, factors: CholeskyFactors, dtype: torch.dtype | None = None) -> Moments:
    """Return the moments of the rows that count."""
    k, d = factors.offset.shape
    if dtype is None:
        dtype = pass_dtype(factors)
    total = Moments.zeros(k, d)
    prepared = em.cast_factors(factors, dtype)
    for _, z, w in rows.iter_chunks(em.chunk_rows(k, d), dtype):
        em.accumulate_moments(z, prepared, w, total)
    return total


def log_densities(rows: StandardisedRows, factors: CholeskyFactors) -> F64:
    """Return the log density of each row, in the precision of a pass; a very low one where it has no number."""
    k, d = factors.offset.shape
    dtype = pass_dtype(factors)
    prepared = em.cast_factors(factors, dtype)
    found = np.empty(len(rows.values))
    for place, z, _ in rows.iter_chunks(em.chunk_rows(k, d), dtype):
        found[place] = torch.logsumexp(em.whiten(z, prepared)[1], dim=0).double().numpy()
    return np.maximum(np.nan_to_num(found, copy=False, nan=_MIN_LOG_DENSITY), _MIN_LOG_DENSITY)


def trim_rows(rows: StandardisedRows, factors: CholeskyFactors, task: FitContext) -> tuple[StandardisedRows, int]:
    """Return the rows of which all but the densest do not count, and how many of all processes those are."""
    share = task.settings.contamination
    if share == 0:
        return rows, 0
    density = log_densities(rows, factors)
    weighed = density if rows.weights is None else density[rows.weights.numpy() > 0]
    inside = density >= task.processes.quantile(weighed, share)
    out = task.processes.sum_array(np.array([(~inside).sum()], dtype=np.float64))
    return rows.with_included(inside), int(out[0])


def pass_dtype(factors: CholeskyFactors) -> torch.dtype:
    """Return the precision that a pass needs."""
    return torch.float32 if em.rounding_amplification(factors) < _MAX_FLOAT32_AMPLIFICATION else torch.float64


def refine_in_float64(rows: StandardisedRows, run: EMResult, task: FitContext) -> EMResult:
    """Return the run after one more step in double precision, which float64 events deserve."""
    factors = em.factorise(run.mixture)
    kept, _ = trim_rows(rows, factors, task)
    moments = e_step(kept, factors, torch.float64)
    moments = moments.unflatten(task.processes.sum_tensor(moments.flatten()))
    mixture, mass = m_step(run.mixture, factors, moments, task)
    return replace(run, mixture=mixture, mass=mass)


def m_step(mixture: Mixture, factors: CholeskyFactors, moments: Moments, task: FitContext) -> tuple[Mixture, Tensor]:
    """Return the next mixture, without components that have lost their rows, and the rows of each.

    The one that has most stays, however little all rows weigh.
    """
    found = em.maximise_likelihood(mixture, factors, moments)
    rows = moments.mass / moments.mass.sum() * moments.log_likelihood[1]
    alive = rows >= rows.max().clamp_max(_MIN_COMPONENT_ROWS)
    if not bool(alive.all()):
        found, rows = em.keep_components(found, alive), rows[alive]
    return em.shrink_covariances(found, rows, task.settings.covariance_type, task.shrinkage), rows
