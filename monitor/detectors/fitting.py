"""Detectors: the fit of a Gaussian mixture, from rows to parameters and a report.

Starts are tried, components counted and the shrinkage chosen on a sample of the rows; the passes over all
rows begin where the sample's EM has ended. Memory is a chunk, the sample and the parameters, whatever the
number of rows.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from config.errors import ModelError
from monitor.detectors import em, start
from monitor.detectors.em import CovarianceType, Factors, Mixture, Moments
from monitor.detectors.inputs import FloatArray
from monitor.detectors.processes import Processes
from monitor.detectors.rows import Rows
from monitor.detectors.scaling import Scaling, column_scaling

F64 = NDArray[np.float64]
Progress = Callable[[int, float], None]

SAMPLE_ROWS = 20_000
LARGEST_AUTO = 8
# Beyond this a float32 row's rounding, enlarged by the factors, would show in the responsibilities.
_SINGLE_LIMIT = 3e3
_FEWEST_ROWS = 0.5
# So many passes tell good starts from bad ones; the best alone goes on.
_TRIAL_PASSES = 8


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
class Report:
    """What happened in a fit: what to look at before trusting it.

    Attributes:
        log_likelihood: The mean log-likelihood of the standardised rows at every pass over all of them.
        condition_numbers: Of each component's covariance, columns standardised.
        shrinkage: The share of the pooled covariance in each component's.
        prior_rows: For how many rows the pooled covariance counted.
        reg_covar: The ridge that was asked for.
        components_asked: None for "auto".
        components_dropped: Those that lost all their rows.
        criterion: BIC by number of components, where that was to be found.
        rows: All rows.
        rows_trimmed: Left out as strange in the last pass.
        sample_iterations: Passes over the sample that the passes over all rows started from.
        seconds: Wall time.
    """

    log_likelihood: tuple[float, ...]
    condition_numbers: tuple[float, ...]
    shrinkage: tuple[float, ...]
    prior_rows: float
    reg_covar: float
    components_asked: int | None
    components_dropped: int
    criterion: dict[int, float] = field(default_factory=dict)
    rows: int
    rows_trimmed: int
    sample_iterations: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A mixture of standardised columns, how they were standardised, and the report."""

    mixture: Mixture
    scaling: Scaling
    converged: bool
    iterations: int
    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What every M step of one fit shares."""

    plan: Plan
    ridge: Tensor
    prior_rows: float
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


def fit(values: FloatArray, weights: F64 | None, plan: Plan, processes: Processes, progress: Progress | None) -> Fitted:
    """Return the mixture fitted to the rows of all processes.

    Args:
        values: This process's events, checked.
        weights: One weight an event, or None.
        plan: The settings.
        processes: Those that share the fit.
        progress: Called after every pass over all rows with its number and mean log-likelihood.
    """
    began = time.perf_counter()
    rng = np.random.default_rng(plan.seed)
    scaling = column_scaling(values, weights, processes.add, processes.largest)
    if plan.covariance_type == "spherical":
        scaling = scaling.common()
    ridge = em.relative_ridge(plan.reg_covar, torch.from_numpy(scaling.scale))
    sample, total = _sample(values, weights, scaling, processes, rng)
    alone = Processes(rank=0, size=1)
    prior = 0.0 if plan.shrinkage is None else plan.shrinkage
    on_sample = Task(plan=plan, ridge=ridge, prior_rows=prior, processes=alone)
    best, criterion = _choose(sample, on_sample, total, rng)
    task = Task(plan=plan, ridge=ridge, prior_rows=prior, processes=processes)
    final = best
    if total > len(sample.values):
        rows = Rows.of(values, weights, scaling)
        final = expectation_maximisation(rows, best.mixture, task, progress)
    k = len(final.mixture.weights)
    report = Report(
        log_likelihood=final.trace,
        condition_numbers=_condition_numbers(final.mixture),
        shrinkage=tuple((prior / (final.mass + prior)).tolist()),
        prior_rows=prior,
        reg_covar=plan.reg_covar,
        components_asked=plan.n_components,
        components_dropped=(plan.n_components or k) - k,
        criterion=criterion if plan.n_components is None else {},
        rows=total,
        rows_trimmed=final.trimmed,
        sample_iterations=len(best.trace),
        seconds=time.perf_counter() - began,
    )
    return Fitted(
        mixture=final.mixture,
        scaling=scaling,
        converged=final.converged,
        iterations=len(final.trace),
        report=report,
    )


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
    while len(trace) < most and not converged:
        factors = em.factorise(mixture)
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
    return Run(mixture=mixture, mass=mass, trace=tuple(trace), converged=converged, trimmed=trimmed)


def one_pass(rows: Rows, factors: Factors, limit: float | None, *, keep_energies: bool) -> tuple[Moments, F64 | None]:
    """Return the moments of all rows whose energy is at most `limit`, and all energies if asked."""
    k, d = factors.offset.shape
    dtype = torch.float32 if em.amplification(factors) < _SINGLE_LIMIT else torch.float64
    total = Moments.zero(k, d)
    energies = np.empty(len(rows.values)) if keep_energies else None
    prepared = em.prepare(factors, dtype)
    for place, z, w in rows.chunks(em.chunk_rows(k, d), dtype):
        log_density = em.gather(z, prepared, w, limit, total)
        if energies is not None:
            energies[place] = -log_density.double().numpy()
    return total, energies


def m_step(mixture: Mixture, factors: Factors, moments: Moments, task: Task) -> tuple[Mixture, Tensor]:
    """Return the next mixture, without components that have lost their rows, and the rows of each."""
    found = em.maximise(mixture, factors, moments)
    rows = moments.mass / moments.mass.sum() * moments.log_likelihood[1]
    alive = rows >= _FEWEST_ROWS
    if not bool(alive.all()):
        found, rows = em.keep(found, alive), rows[alive]
    plan = task.plan
    return em.shrink(found, rows, plan.covariance_type, task.ridge, task.prior_rows), rows


def bic(log_likelihood: float, parameters: int, rows: int) -> float:
    """Return Schwarz's criterion: smaller is better."""
    return -2 * log_likelihood + parameters * float(np.log(rows))


def count_parameters(k: int, d: int, kind: CovarianceType) -> int:
    """Return the number of free parameters of a mixture."""
    covariance = {
        "full": k * d * (d + 1) // 2,
        "tied": d * (d + 1) // 2,
        "diag": k * d,
        "spherical": k,
    }[kind]
    return k - 1 + k * d + covariance


def report_from(stored: dict[str, Any]) -> Report:
    """Return the report that an artefact's training summary holds."""
    try:
        return msgspec.convert(stored, Report, strict=False)
    except msgspec.ValidationError as reason:
        raise ModelError(f"the model's training report cannot be read: {reason}; fit it again") from reason


def _choose(sample: Rows, task: Task, total: int, rng: np.random.Generator) -> tuple[Run, dict[int, float]]:
    """Return the best run on the sample over all numbers of components asked for, and their BIC."""
    plan = task.plan
    d = sample.values.shape[1]
    most = min(LARGEST_AUTO, len(sample.values))
    candidates = [plan.n_components] if plan.n_components else list(range(1, most + 1))
    criterion: dict[int, float] = {}
    best: Run | None = None
    for k in candidates:
        run = _best_start(sample, k, task, rng)
        parameters = count_parameters(len(run.mixture.weights), d, plan.covariance_type)
        score = bic(run.log_likelihood * total, parameters, total)
        if best is None or score < min(criterion.values()):
            best = run
        criterion[k] = score
    assert best is not None
    return best, criterion


def _best_start(sample: Rows, k: int, task: Task, rng: np.random.Generator) -> Run:
    """Return the best of `n_init` runs of EM on the sample."""
    assert sample.cached is not None
    assert sample.weights is not None
    best: Run | None = None
    weights = sample.weights.float()
    plan = task.plan
    for _ in range(plan.n_init if k > 1 else 1):
        centres = start.plus_plus(sample.cached, weights, k, rng)
        centres, place = start.k_means(sample.cached, weights, centres)
        raw, mass = start.from_places(sample.cached, weights, place, len(centres))
        mixture = em.shrink(raw, mass, plan.covariance_type, task.ridge, task.prior_rows)
        run = expectation_maximisation(sample, mixture, task, None, _TRIAL_PASSES)
        if best is None or run.log_likelihood > best.log_likelihood:
            best = run
    assert best is not None
    if best.converged:
        return best
    rest = expectation_maximisation(sample, best.mixture, task, None)
    return replace(rest, trace=best.trace + rest.trace)


def _sample(
    values: FloatArray, weights: F64 | None, scaling: Scaling, processes: Processes, rng: np.random.Generator
) -> tuple[Rows, int]:
    """Return standardised rows drawn from all processes, and the number of all rows."""
    before, total = processes.first_row(len(values))
    chosen = np.arange(total)
    if total > SAMPLE_ROWS:
        chosen = np.sort(rng.choice(total, SAMPLE_ROWS, replace=False))
    mine = (chosen >= before) & (chosen < before + len(values))
    gathered = np.zeros((len(chosen), values.shape[1] + 1))
    gathered[mine, :-1] = scaling.standardise(values[chosen[mine] - before])
    gathered[mine, -1] = 1.0 if weights is None else weights[chosen[mine] - before]
    gathered = processes.add(gathered)
    gathered = gathered[gathered[:, -1] > 0]
    w = gathered[:, -1]
    return Rows.standardised(gathered[:, :-1], w / w.sum() * len(w)), total


def _trim(energies: F64, share: float, processes: Processes) -> tuple[float, int]:
    """Return the energy above which `share` of all rows lie, and their number."""
    everything = processes.gather(energies)
    limit = float(np.quantile(everything, 1 - share))
    return limit, int((everything > limit).sum())


def _condition_numbers(mixture: Mixture) -> tuple[float, ...]:
    values = torch.linalg.eigvalsh(mixture.covariances)
    return tuple((values[:, -1] / values[:, 0]).tolist())
