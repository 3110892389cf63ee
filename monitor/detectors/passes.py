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
    """Alternate E and M steps until the mean log-likelihood moves by less than the tolerance."""
    plan = task.plan
    trace: list[float] = []
    limit: float | None = None
    trimmed = 0
    converged = False
    mass = mixture.weights
    most = plan.max_iter if passes is None else min(passes, plan.max_iter)
    factors = em.factorise(mixture)
    while len(trace) < most and not converged:
        moments, energies = one_pass(rows, factors, limit, keep_energies=plan.contamination > 0)
        moments = moments.from_flat(task.processes.sum(moments.flat()))
        trace.append(float(moments.log_likelihood[0] / moments.log_likelihood[1]))
        if progress is not None:
            progress(len(trace), trace[-1])
        if energies is not None:
            limit, trimmed = _trim(energies, plan.contamination, task.processes)
        # The second pass of a trimmed fit is the first that leaves rows out: its change says nothing.
        settled = 3 if energies is not None else 2
        converged = len(trace) >= settled and abs(trace[-1] - trace[-2]) < plan.tol
        mixture, mass = m_step(mixture, factors, moments, task)
        before, factors = factors, em.factorise(mixture)
        if energies is None and len(mass) == len(moments.mass):
            # The next pass would find no more than twice this gain: it can be spared.
            gain = em.expected_gain(before, moments, mixture, factors)
            converged = converged or 2 * abs(gain) < plan.tol
    return Run(mixture=mixture, mass=mass, trace=tuple(trace), converged=converged, trimmed=trimmed)


def one_pass(
    rows: Rows,
    factors: Factors,
    limit: float | None,
    *,
    keep_energies: bool,
    dtype: torch.dtype | None = None,
) -> tuple[Moments, F64 | None]:
    """Return the moments of all rows whose energy is at most `limit`, and all energies if asked."""
    k, d = factors.offset.shape
    if dtype is None:
        dtype = precision(factors)
    total = Moments.zero(k, d)
    energies = np.empty(len(rows.values)) if keep_energies else None
    prepared = em.prepare(factors, dtype)
    for place, z, w in rows.chunks(em.chunk_rows(k, d), dtype):
        log_density = em.gather(z, prepared, w, limit, total)
        if energies is not None:
            energies[place] = -log_density.double().numpy()
    return total, energies


def precision(factors: Factors) -> torch.dtype:
    """Return the precision that a pass needs."""
    return torch.float32 if em.amplification(factors) < _SINGLE_LIMIT else torch.float64


def polish(rows: Rows, run: Run, task: Task) -> Run:
    """Return the run after one more step in double precision, which float64 events deserve."""
    factors = em.factorise(run.mixture)
    contamination = task.plan.contamination
    limit = None
    if contamination > 0:
        _, energies = one_pass(rows, factors, None, keep_energies=True)
        assert energies is not None
        limit, _ = _trim(energies, contamination, task.processes)
    moments, _ = one_pass(rows, factors, limit, keep_energies=False, dtype=torch.float64)
    moments = moments.from_flat(task.processes.sum(moments.flat()))
    mixture, mass = m_step(run.mixture, factors, moments, task)
    return replace(run, mixture=mixture, mass=mass)


def m_step(mixture: Mixture, factors: Factors, moments: Moments, task: Task) -> tuple[Mixture, Tensor]:
    """Return the next mixture, without components that have lost their rows, and the rows of each."""
    found = em.maximise(mixture, factors, moments)
    rows = moments.mass / moments.mass.sum() * moments.log_likelihood[1]
    alive = rows >= _FEWEST_ROWS
    if not bool(alive.all()):
        found, rows = em.keep(found, alive), rows[alive]
    return em.shrink(found, rows, task.plan.covariance_type, task.shrinkage), rows


def _trim(energies: F64, share: float, processes: Processes) -> tuple[float, int]:
    """Return the energy above which `share` of all rows lie, and their number."""
    limit = processes.quantile(energies, 1 - share)
    return limit, int(processes.add(np.array([(energies > limit).sum()], dtype=np.float64))[0])
