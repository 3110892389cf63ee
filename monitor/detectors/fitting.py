"""Detectors: the fit of a Gaussian mixture, from rows to parameters and a report.

Starts are tried and components counted on a sample of the rows; the passes over all rows begin where the
sample's EM has ended. Memory is a chunk, the sample and the parameters, whatever the number of rows.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
from monitor.detectors.scaling import Scaling, column_scaling

F64 = NDArray[np.float64]
Progress = Callable[[int, float], None]

SAMPLE_ROWS = 20_000
LARGEST_AUTO = 8
_CACHE_BYTES = 128 << 20
# Beyond this a float32 row's rounding, enlarged by the factors, would show in the responsibilities.
_SINGLE_LIMIT = 3e3


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the user asked of a fit."""

    n_components: int | None
    covariance_type: CovarianceType
    tol: float
    max_iter: int
    n_init: int
    reg_covar: float
    prior_rows: float | None
    contamination: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What happened in a fit: what to look at before trusting it."""

    log_likelihood: tuple[float, ...]
    condition_numbers: tuple[float, ...]
    shrinkage: tuple[float, ...]
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
class Rows:
    """Standardised rows in chunks; kept in memory where they are few."""

    values: FloatArray
    weights: Tensor | None
    scaling: Scaling
    cached: Tensor | None

    @staticmethod
    def of(values: FloatArray, weights: F64 | None, scaling: Scaling) -> "Rows":
        """Return the rows of an array, standardised beforehand when they fit the cache."""
        small = values.size * 4 <= _CACHE_BYTES
        cached = torch.empty(values.shape, dtype=torch.float32) if small else None
        if cached is not None:
            for at in range(0, len(values), 4096):
                cached[at : at + 4096] = torch.from_numpy(scaling.standardise(values[at : at + 4096]))
        w = None if weights is None else torch.from_numpy(weights)
        return Rows(values=values, weights=w, scaling=scaling, cached=cached)

    def chunks(self, size: int, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """Yield the place, the standardised rows and the weights of every chunk."""
        for at in range(0, len(self.values), size):
            place = slice(at, at + size)
            if self.cached is not None and dtype == torch.float32:
                z = self.cached[place]
            else:
                z = torch.from_numpy(self.scaling.standardise(self.values[place])).to(dtype)
            yield place, z, None if self.weights is None else self.weights[place].to(dtype)


def fit(
    values: FloatArray, weights: F64 | None, plan: Plan, processes: Processes, progress: Progress | None
) -> Fitted:
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
    sample, sample_weights, total = _sample(values, weights, scaling, processes, rng)
    sample_rows = Rows(
        values=sample.numpy(),
        weights=sample_weights.double(),
        scaling=Scaling(centre=np.zeros(sample.shape[1]), scale=np.ones(sample.shape[1])),
        cached=sample,
    )
    alone = Processes(rank=0, size=1)
    candidates = [plan.n_components] if plan.n_components else list(range(1, LARGEST_AUTO + 1))
    best: _Run | None = None
    criterion: dict[int, float] = {}
    for k in candidates:
        run = _best_start(sample_rows, sample_weights, k, plan, rng, alone)
        score = bic(
            run.log_likelihood * total,
            count_parameters(len(run.mixture.weights), values.shape[1], plan.covariance_type),
            total,
        )
        criterion[k] = score
        if best is None or score < min(v for key, v in criterion.items() if key != k):
            best = run
    assert best is not None
    if total > len(sample):
        rows = Rows.of(values, weights, scaling)
        final = expectation_maximisation(rows, best.mixture, plan, processes, progress, plan.max_iter)
    else:
        final = best
    report = Report(
        log_likelihood=final.trace,
        condition_numbers=_condition_numbers(final.mixture),
        shrinkage=final.shrinkage,
        reg_covar=plan.reg_covar,
        components_asked=plan.n_components,
        components_dropped=(plan.n_components or len(final.mixture.weights)) - len(final.mixture.weights),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    mixture: Mixture
    log_likelihood: float
    trace: tuple[float, ...]
    converged: bool
    shrinkage: tuple[float, ...]
    trimmed: int


def expectation_maximisation(
    rows: Rows,
    mixture: Mixture,
    plan: Plan,
    processes: Processes,
    progress: Progress | None,
    max_iter: int,
) -> _Run:
    """Alternate E and M steps until the mean log-likelihood moves by less than the tolerance."""
    trace: list[float] = []
    converged = False
    limit: float | None = None
    shrinkage: tuple[float, ...] = ()
    trimmed = 0
    for iteration in range(max(max_iter, 1)):
        factors = em.factorise(mixture)
        moments, energies = one_pass(rows, factors, limit, keep_energies=plan.contamination > 0)
        moments = moments.from_flat(processes.sum(moments.flat()))
        log_likelihood = float(moments.log_likelihood[0] / moments.log_likelihood[1])
        if progress is not None:
            progress(iteration + 1, log_likelihood)
        if energies is not None:
            limit = float(np.quantile(energies, 1 - plan.contamination))
            trimmed = int((energies > limit).sum())
        if trace and abs(log_likelihood - trace[-1]) < plan.tol and iteration > 1:
            converged = True
        trace.append(log_likelihood)
        mixture, shrinkage = m_step(mixture, factors, moments, plan)
        if converged:
            break
    return _Run(
        mixture=mixture,
        log_likelihood=trace[-1],
        trace=tuple(trace),
        converged=converged,
        shrinkage=shrinkage,
        trimmed=trimmed,
    )


def one_pass(
    rows: Rows, factors: Factors, limit: float | None, *, keep_energies: bool
) -> tuple[Moments, F64 | None]:
    """Return the moments of all rows whose energy is at most `limit`, and all energies if asked."""
    k, d = factors.offset.shape
    dtype = torch.float32 if em.amplification(factors) < _SINGLE_LIMIT else torch.float64
    total = Moments.zero(k, d)
    energies = np.empty(len(rows.values)) if keep_energies else None
    for place, z, w in rows.chunks(em.chunk_rows(k, d), dtype):
        weights = w
        if limit is not None:
            inside = (-em.log_density(z, factors) <= limit).to(dtype)
            weights = inside if w is None else w * inside
        log_likelihood = em.gather(z, factors, weights, total)
        if energies is not None:
            energies[place] = -log_likelihood.double().numpy()
    return total, energies


def m_step(
    mixture: Mixture, factors: Factors, moments: Moments, plan: Plan
) -> tuple[Mixture, tuple[float, ...]]:
    """Return the next mixture, without components that have lost their rows, and each one's shrinkage."""
    found = em.maximise(mixture, factors, moments)
    rows = moments.mass / moments.mass.sum() * moments.log_likelihood[1]
    alive = rows >= 0.5
    if not bool(alive.all()):
        found, rows = em.keep(found, alive), rows[alive]
    prior = prior_rows(plan, found.means.shape[1])
    shrinkage = tuple((prior / (rows + prior)).tolist())
    return em.shrink(found, rows, plan.covariance_type, plan.reg_covar, prior), shrinkage


def prior_rows(plan: Plan, d: int) -> float:
    """Return for how many rows the pooled covariance counts in each component's own."""
    return float(d) if plan.prior_rows is None else plan.prior_rows


def bic(log_likelihood: float, parameters: int, rows: int) -> float:
    """Return Schwarz's criterion: smaller is better."""
    return -2 * log_likelihood + parameters * float(np.log(rows))


def report_from(stored: dict[str, Any]) -> Report:
    """Return the report that an artefact's training summary holds."""
    try:
        report: Report = msgspec.convert(stored, Report)
    except msgspec.ValidationError as reason:
        raise ModelError(f"the model's training report cannot be read: {reason}; fit it again") from reason
    return report


def count_parameters(k: int, d: int, kind: CovarianceType) -> int:
    """Return the number of free parameters of a mixture."""
    covariance = {
        "full": k * d * (d + 1) // 2,
        "tied": d * (d + 1) // 2,
        "diag": k * d,
        "spherical": k,
    }[kind]
    return k - 1 + k * d + covariance


def _sample(
    values: FloatArray, weights: F64 | None, scaling: Scaling, processes: Processes, rng: np.random.Generator
) -> tuple[Tensor, Tensor, int]:
    """Return standardised rows drawn from all processes with their weights, and the number of all rows."""
    before, total = processes.first_row(len(values))
    chosen = np.arange(total)
    if total > SAMPLE_ROWS:
        chosen = np.sort(rng.choice(total, SAMPLE_ROWS, replace=False))
    mine = (chosen >= before) & (chosen < before + len(values))
    gathered = np.zeros((len(chosen), values.shape[1] + 1))
    gathered[mine, :-1] = scaling.standardise(values[chosen[mine] - before])
    gathered[mine, -1] = 1.0 if weights is None else weights[chosen[mine] - before]
    gathered = processes.add(gathered)
    z = torch.from_numpy(gathered[:, :-1].astype(np.float32))
    w = torch.from_numpy(gathered[:, -1].astype(np.float32))
    return z, w / w.sum() * len(w), total


def _best_start(
    rows: Rows, weights: Tensor, k: int, plan: Plan, rng: np.random.Generator, alone: Processes
) -> _Run:
    """Return the best of `n_init` runs of EM on the sample."""
    assert rows.cached is not None
    best: _Run | None = None
    for _ in range(plan.n_init if k > 1 else 1):
        centres = start.plus_plus(rows.cached, weights, k, rng)
        centres, place = start.k_means(rows.cached, weights, centres)
        raw, mass = start.from_places(rows.cached, weights, place, len(centres))
        prior = prior_rows(plan, raw.means.shape[1])
        mixture = em.shrink(raw, mass, plan.covariance_type, plan.reg_covar, prior)
        run = expectation_maximisation(rows, mixture, plan, alone, None, plan.max_iter)
        if best is None or run.log_likelihood > best.log_likelihood:
            best = run
    assert best is not None
    return best


def _condition_numbers(mixture: Mixture) -> tuple[float, ...]:
    values = torch.linalg.eigvalsh(mixture.covariances)
    return tuple((values[:, -1] / values[:, 0]).tolist())
