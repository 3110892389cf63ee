"""Detectors: how many components, and how much shrinkage, by the likelihood of events held out.

BIC trusts the likelihood of the rows fitted on. On discrete or repeated values that grows without end as
components narrow, so BIC takes all it may and the mixture is certain of what it has seen once. Rows held
out see through that. They are taken from the sample as every fifth of fifty contiguous pieces: neighbours
in time are alike, so single rows would hold out little, and one piece at the end might be another regime.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from monitor.detectors import em, start
from monitor.detectors.em import Mixture, Shrinkage
from monitor.detectors.passes import Run, Task, expectation_maximisation, one_pass, precision
from monitor.detectors.rows import Rows

F64 = NDArray[np.float64]

LARGEST_AUTO = 8
# Made-up rows to choose from, and how many nats an event fewer of them may cost.
_PRIOR_ROWS = (0.0, 0.2, 1.0, 5.0, 20.0)
_INDIFFERENT = 0.01
# Without any, the start that wins is the one with a component on a handful of equal rows.
_PRIOR_OF_STARTS = 1.0
# With fewer rows held out than this, chance decides: no shrinkage, and BIC for the components.
_FEWEST_HELD_OUT = 100
_PIECES = 50
# So many passes tell good starts from bad ones; the best alone goes on.
_TRIAL_PASSES = 8
_TRIAL_ROWS = (1500, 6000)
_TRIAL_ROWS_PER_MEAN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The run on the whole sample to go on from, with its shrinkage, and what it was chosen by."""

    run: Run
    shrinkage: Shrinkage
    held_out: dict[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    run: Run
    rows: float
    log_density: F64


def choose(sample: Rows, task: Task, rng: np.random.Generator) -> Choice:
    """Return the components and shrinkage that the plan leaves open, and EM's end on the sample with them."""
    plan = task.plan
    n = len(sample.values)
    most = min(LARGEST_AUTO, n)
    counts = [plan.n_components] if plan.n_components else list(range(1, most + 1))
    held = (np.arange(n) * _PIECES // n) % 5 == 2
    if held.sum() < _FEWEST_HELD_OUT:
        return _by_bic(sample, task, counts, rng)
    if plan.n_components is not None and (plan.shrinkage is not None or plan.n_components == 1):
        return Choice(run=best_start(sample, counts[0], task, rng), shrinkage=task.shrinkage, held_out={})
    if plan.shrinkage is None:
        task = replace(task, shrinkage=replace(task.shrinkage, rows=_PRIOR_OF_STARTS))
    learn, test = sample.take(~held), sample.take(held)
    weights = np.ones(len(test.values)) if test.weights is None else test.weights.numpy()
    trials: dict[int, _Trial] = {}
    for k in counts:
        trials[k] = _trial(learn, test, weights, best_start(learn, k, task, rng), task)
        if k > min(trials) + 2 and _best(trials, weights) <= k - 3:
            break
    k = _simplest(trials, weights)
    shrinkage = replace(task.shrinkage, rows=trials[k].rows)
    settled = replace(task, shrinkage=shrinkage)
    run = expectation_maximisation(sample, trials[k].run.mixture, settled, None)
    found = {count: _mean(trial.log_density, weights) for count, trial in trials.items()}
    return Choice(run=run, shrinkage=shrinkage, held_out=found if plan.n_components is None else {})


def best_start(sample: Rows, k: int, task: Task, rng: np.random.Generator) -> Run:
    """Return EM's end on the sample from the best of `n_init` starts, each tried on some of the rows."""
    plan = task.plan
    few = sample
    n, d = sample.values.shape
    enough = int(np.clip(_TRIAL_ROWS_PER_MEAN * k * d, *_TRIAL_ROWS))
    if plan.n_init > 1 and k > 1 and n > enough:
        chosen = np.zeros(n, dtype=bool)
        chosen[rng.choice(n, enough, replace=False)] = True
        few = sample.take(chosen)
    z, weights = few.single()
    best: Run | None = None
    for _ in range(plan.n_init if k > 1 else 1):
        centres = start.plus_plus(z, weights, k, rng)
        centres, place = start.k_means(z, weights, centres)
        raw, mass = start.from_places(z, weights, place, len(centres))
        mixture = em.shrink(raw, mass, plan.covariance_type, task.shrinkage)
        run = expectation_maximisation(few, mixture, task, None, _TRIAL_PASSES)
        if best is None or run.log_likelihood > best.log_likelihood:
            best = run
    assert best is not None
    if few is sample and (best.converged or plan.max_iter <= _TRIAL_PASSES):
        return best
    rest = expectation_maximisation(sample, best.mixture, task, None)
    return replace(rest, trace=best.trace + rest.trace)


def bic(log_likelihood: float, parameters: int, rows: int) -> float:
    """Return Schwarz's criterion: smaller is better."""
    return -2 * log_likelihood + parameters * float(np.log(rows))


def count_parameters(k: int, d: int, kind: em.CovarianceType) -> int:
    """Return the number of free parameters of a mixture."""
    covariance = {
        "full": k * d * (d + 1) // 2,
        "tied": d * (d + 1) // 2,
        "diag": k * d,
        "spherical": k,
    }[kind]
    return k - 1 + k * d + covariance


def _by_bic(sample: Rows, task: Task, counts: list[int], rng: np.random.Generator) -> Choice:
    n, d = sample.values.shape
    best: tuple[float, Run] | None = None
    for k in counts:
        run = best_start(sample, k, task, rng)
        parameters = count_parameters(len(run.mixture.weights), d, task.plan.covariance_type)
        score = bic(run.log_likelihood * n, parameters, n)
        if best is None or score < best[0]:
            best = score, run
    assert best is not None
    return Choice(run=best[1], shrinkage=task.shrinkage, held_out={})


def _trial(learn: Rows, test: Rows, weights: F64, run: Run, task: Task) -> _Trial:
    """Return the log densities of the held-out rows with the least shrinkage that is good enough."""
    factors = em.factorise(run.mixture)
    moments, _ = one_pass(learn, factors, None, keep_energies=False)
    plain = em.maximise(run.mixture, factors, moments)
    wanted = _PRIOR_ROWS if task.plan.shrinkage is None else (task.plan.shrinkage,)
    found = [
        _log_density(test, em.shrink(plain, moments.mass, task.plan.covariance_type, shrinkage))
        for shrinkage in (replace(task.shrinkage, rows=rows) for rows in wanted)
    ]
    means = [_mean(values, weights) for values in found]
    best = next(i for i, mean in enumerate(means) if mean >= max(means) - _INDIFFERENT)
    return _Trial(run=run, rows=wanted[best], log_density=found[best])


def _log_density(rows: Rows, mixture: Mixture) -> F64:
    factors = em.factorise(mixture)
    dtype = precision(factors)
    prepared = em.prepare(factors, dtype)
    k, d = mixture.means.shape
    parts = [
        torch.logsumexp(em.whiten(z, prepared)[1], dim=0).double().numpy()
        for _, z, _ in rows.chunks(em.chunk_rows(k, d), dtype)
    ]
    return np.concatenate(parts)


def _best(trials: dict[int, _Trial], weights: F64) -> int:
    return max(trials, key=lambda k: _mean(trials[k].log_density, weights))


def _simplest(trials: dict[int, _Trial], weights: F64) -> int:
    """Return the fewest components that are not worse than the best by more than chance would have it."""
    best = trials[_best(trials, weights)].log_density
    for k, trial in trials.items():
        lost = best - trial.log_density
        mean = _mean(lost, weights)
        deviation = np.sqrt(_mean(np.square(lost - mean), weights) / len(lost))
        if mean <= deviation:
            return k
    return _best(trials, weights)


def _mean(values: F64, weights: F64) -> float:
    return float(weights @ values / weights.sum())
