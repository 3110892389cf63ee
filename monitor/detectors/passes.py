"""Detectors: the iterations of EM over rows in chunks, on one process or several."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.detectors import em
from monitor.detectors.em import CovarianceType, Factors, Mixture, Moments
from monitor.detectors.processes import Processes
from monitor.detectors.rows import Rows

F64 = NDArray[np.float64]
Progress = Callable[[int, float], None]

# Beyond this a float32 row's rounding, enlarged by the factors, would come near a hundredth of a deviation.
_SINGLE_LIMIT = 3e4
_FEWEST_ROWS = 0.5
_LOWEST = -1e300  # the log density of rows too far away for any: numbers can still be taken between it and others


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the user asked of a fit."""

    n_components: int | None
    covariance_type: CovarianceType
    tol: float
    max_iter: int
    n_init: int
    reg_covar: float
    shrinkage: float | None
    contamination: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What every M step of one fit shares."""

    plan: Plan
    shrinkage: em.Shrinkage
    processes: Processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Where one run of EM ended."""

    mixture: Mixture
    mass: Tensor
    trace: tuple[float, ...]
    converged: bool
    trimmed: int

    @property
    def log_likelihood(self) -> float:
        """The last mean log-likelihood."""
        return self.trace[-1]


def expectation_maximisation(
    rows: Rows, mixture: Mixture, task: Task, progress: Progress | None, passes: int | None = None
) -> Run:
    """Alternate E and M steps until the mean log-likelihood moves by less than the tolerance.

    With contamination each step begins with a pass that tells which rows are the strangest under the present
    mixture (a concentration step): by the energies of an earlier mixture, all rows might be.
    """
    plan = task.plan
    trace: list[float] = []
    trimmed = 0
    converged = False
    mass = mixture.weights
    most = plan.max_iter if passes is None else min(passes, plan.max_iter)
    factors = em.factorise(mixture)
    while len(trace) < most and not converged:
        kept, trimmed = densest(rows, factors, task)
        moments = one_pass(kept, factors)
        moments = moments.from_flat(task.processes.sum(moments.flat()))
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
    return Run(mixture=mixture, mass=mass, trace=tuple(trace), converged=converged, trimmed=trimmed)


def one_pass(rows: Rows, factors: Factors, dtype: torch.dtype | None = None) -> Moments:
    """Return the moments of the rows that count."""
    k, d = factors.offset.shape
    if dtype is None:
        dtype = precision(factors)
    total = Moments.zero(k, d)
    prepared = em.prepare(factors, dtype)
    for _, z, w in rows.chunks(em.chunk_rows(k, d), dtype):
        em.gather(z, prepared, w, total)
    return total


def log_densities(rows: Rows, factors: Factors) -> F64:
    """Return the log density of each row, in the precision of a pass; a very low one where it has no number."""
    k, d = factors.offset.shape
    dtype = precision(factors)
    prepared = em.prepare(factors, dtype)
    found = np.empty(len(rows.values))
    for place, z, _ in rows.chunks(em.chunk_rows(k, d), dtype):
        found[place] = torch.logsumexp(em.whiten(z, prepared)[1], dim=0).double().numpy()
    return np.maximum(np.nan_to_num(found, copy=False, nan=_LOWEST), _LOWEST)


def densest(rows: Rows, factors: Factors, task: Task) -> tuple[Rows, int]:
    """Return the rows of which all but the densest do not count, and how many of all processes those are."""
    share = task.plan.contamination
    if share == 0:
        return rows, 0
    density = log_densities(rows, factors)
    weighed = density if rows.weights is None else density[rows.weights.numpy() > 0]
    inside = density >= task.processes.quantile(weighed, share)
    out = task.processes.add(np.array([(~inside).sum()], dtype=np.float64))
    return rows.only(inside), int(out[0])


def precision(factors: Factors) -> torch.dtype:
    """Return the precision that a pass needs."""
    return torch.float32 if em.amplification(factors) < _SINGLE_LIMIT else torch.float64


def polish(rows: Rows, run: Run, task: Task) -> Run:
    """Return the run after one more step in double precision, which float64 events deserve."""
    factors = em.factorise(run.mixture)
    kept, _ = densest(rows, factors, task)
    moments = one_pass(kept, factors, torch.float64)
    moments = moments.from_flat(task.processes.sum(moments.flat()))
    mixture, mass = m_step(run.mixture, factors, moments, task)
    return replace(run, mixture=mixture, mass=mass)


def m_step(mixture: Mixture, factors: Factors, moments: Moments, task: Task) -> tuple[Mixture, Tensor]:
    """Return the next mixture, without components that have lost their rows, and the rows of each.

    The one that has most stays, however little all rows weigh.
    """
    found = em.maximise(mixture, factors, moments)
    rows = moments.mass / moments.mass.sum() * moments.log_likelihood[1]
    alive = rows >= rows.max().clamp_max(_FEWEST_ROWS)
    if not bool(alive.all()):
        found, rows = em.keep(found, alive), rows[alive]
    return em.shrink(found, rows, task.plan.covariance_type, task.shrinkage), rows
