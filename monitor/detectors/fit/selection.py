"""Detectors: how many components, and how much shrinkage, by the likelihood of events held out.

BIC trusts the likelihood of the rows fitted on. On discrete or repeated values that grows without end as
components narrow, so BIC takes all it may and the mixture is certain of what it has seen once. Rows held
out see through that. They are every fifth of fifty contiguous pieces of the sample: neighbours in time are
alike, so single rows would hold out little, and one piece at the end might be another regime. With few rows
each fifth is held out in turn (cross-validation), with many one is enough.

The most likely number of components is not the best for finding what is strange: the last of them make the
density higher where it is high already, and a narrow component calls rows dense that lie many deviations
from it. So the fewest are taken that reach most of what components can gain, of rows that repeat a smaller part.

For the same reason each of several components is given made-up rows, as many as columns up to ten, which vary as
the components do on average: it is certain of no direction in which it alone has seen too little. Who asks for
a number of components has a density in mind: then they are fewer or none where rows held out are likelier so.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from monitor.detectors.fit import em
from monitor.detectors.fit import initialisation as start
from monitor.detectors.fit.duplicates import group_duplicates
from monitor.detectors.fit.em import Shrinkage
from monitor.detectors.fit.iterations import (
    EMResult,
    FitContext,
    e_step,
    expectation_maximisation,
    log_densities,
)
from monitor.detectors.fit.rows import StandardisedRows
from monitor.detectors.fit.settings import FitSettings
from monitor.detectors.mixture_values import CovarianceType

F64 = NDArray[np.float64]

MAX_AUTO_COMPONENTS = 8
# Made-up rows to choose from, beside as many as columns, and how many nats an event fewer of them may cost.
_PRIOR_ROWS = (0.0, 0.2, 1.0, 5.0, 20.0)
_TOLERATED_LOSS_NATS = 0.01
# As many made-up rows as columns, up to this, vary as the components do on average. Without them pima's AUROC
# is .61, with them .72; 64 of them on the 64 columns of digits, 160 rows a component, give .79, and 10 .92.
_MAX_POOLED_ROWS = 10.0
# Without any, the start that wins is the one with a component on a handful of equal rows.
_INITIALISATION_PRIOR_ROWS = 1.0
# The share of the gain from one component to the best number that is enough. Where a tenth of the rows equal another,
# the density grows without end where they lie, and much of the gain is that (KDD Cup 99, mammography).
_SUFFICIENT_GAIN = 0.8
_SUFFICIENT_GAIN_WITH_DUPLICATES = 0.6
_MAX_DISTINCT_SHARE = 0.9
# With fewer rows, or fewer a component, nothing can be held out: one component, no shrinkage.
_MIN_ROWS = 20
_MIN_ROWS_PER_COMPONENT = 5
_N_BLOCKS = 50
_N_FOLDS = 5
_ROUNDING_SLACK = 1e-6  # a piece begins with the same row however the sum of the weights is rounded
# With at least so many rows one fifth held out tells enough; to choose only the shrinkage, fewer do.
_SINGLE_FOLD_ROWS = 5000
_SINGLE_FOLD_ROWS_SHRINKAGE = 500
# So many passes tell good starts from bad ones; the best alone goes on.
_TRIAL_PASSES = 8
_TRIAL_ROWS = (1500, 6000)
_TRIAL_ROWS_PER_MEAN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSelection:
    """The run on the whole sample to go on from, with its shrinkage, and what it was chosen by."""

    em_result: EMResult
    shrinkage: Shrinkage
    held_out_log_likelihoods: dict[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """One number of components: a run of it, the shrinkage it wants, and its held-out log densities."""

    em_result: EMResult
    shrinkage: Shrinkage
    log_density: F64


def select_model(
    sample: StandardisedRows, task: FitContext, rng: np.random.Generator, *, final: bool = True
) -> ModelSelection:
    """Return the components and shrinkage that the plan leaves open, and EM's end on the sample with them.

    Where passes over more rows follow and nothing is `final`, EM's end on the rows not held out will do.
    """
    plan = task.settings
    own = _row_weights(sample)
    # Kish's number of rows: of few that outweigh the rest none can be held out.
    n = int(own.sum() ** 2 / np.square(own).sum() + _ROUNDING_SLACK)
    asked = plan.n_components
    counts = [asked] if asked else list(range(1, min(MAX_AUTO_COMPONENTS, n // _MIN_ROWS_PER_COMPONENT) + 1))
    open_question = asked is None or (plan.shrinkage is None and asked > 1)
    if not open_question or n < _MIN_ROWS or n < _MIN_ROWS_PER_COMPONENT * counts[0]:
        return ModelSelection(
            em_result=best_initialisation(sample, asked or 1, task, rng),
            shrinkage=task.shrinkage,
            held_out_log_likelihoods={},
        )
    if plan.shrinkage is None:
        task = replace(
            task,
            shrinkage=replace(
                task.shrinkage, prior_rows=_INITIALISATION_PRIOR_ROWS, pooled_rows=_pooled_rows(sample, plan)
            ),
        )
    folds = _make_folds(own, _SINGLE_FOLD_ROWS if asked is None else _SINGLE_FOLD_ROWS_SHRINKAGE)
    weights = np.concatenate([own[held] for held in folds])
    trials: dict[int, _Candidate] = {}
    for k in counts:
        trials[k] = _evaluate_candidate(sample, folds, weights, k, task, rng)
        if k > min(trials) + 2 and _most_likely(trials, weights) <= k - 3:
            break
    enough = (
        _SUFFICIENT_GAIN_WITH_DUPLICATES if asked is None and _has_many_duplicates(sample, own) else _SUFFICIENT_GAIN
    )
    k = _fewest_sufficient(trials, weights, enough)
    shrinkage = trials[k].shrinkage
    settled = replace(task, shrinkage=shrinkage)
    run = trials[k].em_result
    if len(folds) > 1:
        run = best_initialisation(sample, k, settled, rng)
    elif final:
        run = expectation_maximisation(sample.deduplicated(), run.mixture, settled, None)
    found = {count: _weighted_mean(trial.log_density, weights) for count, trial in trials.items()}
    return ModelSelection(em_result=run, shrinkage=shrinkage, held_out_log_likelihoods=found if asked is None else {})


def best_initialisation(sample: StandardisedRows, k: int, task: FitContext, rng: np.random.Generator) -> EMResult:
    """Return EM's end on the sample from the best of `n_init` starts, each tried on some of the rows."""
    plan = task.settings
    few = sample
    n, d = sample.values.shape
    enough = int(np.clip(_TRIAL_ROWS_PER_MEAN * k * d, *_TRIAL_ROWS))
    if plan.n_init > 1 and k > 1 and n > enough:
        chosen = np.zeros(n, dtype=bool)
        chosen[rng.choice(n, enough, replace=False)] = True
        few = sample.subset(chosen)
    z, weights = few.to_float32()
    best: EMResult | None = None
    for _ in range(plan.n_init if k > 1 else 1):
        centres = start.kmeans_plus_plus(z, weights, k, rng, plan.contamination)
        near = (
            start.trim_farthest(start.squared_distance_to_nearest(z, centres), weights, plan.contamination)
            if k > 1
            else weights
        )
        centres, place = start.k_means(z, near, centres)
        raw, mass = start.mixture_from_labels(z, near, place, len(centres))
        mixture = em.shrink_covariances(raw, mass, plan.covariance_type, task.shrinkage)
        run = expectation_maximisation(few, mixture, task, None, _TRIAL_PASSES)
        if best is None or run.log_likelihood > best.log_likelihood:
            best = run
    assert best is not None
    if few is sample and (best.converged or plan.max_iter <= _TRIAL_PASSES):
        return best
    rest = expectation_maximisation(sample.deduplicated(), best.mixture, task, None)
    return replace(rest, log_likelihoods=best.log_likelihoods + rest.log_likelihoods)


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


def _make_folds(weights: F64, one_from: int) -> list[NDArray[np.bool_]]:
    """Return which rows each fold holds out; a single fold where they weigh as `one_from` rows.

    Pieces are cut by weight, which counts rows; by number where a few rows outweigh the rest and pieces would be empty.
    """
    pieces, total = min(_N_BLOCKS, len(weights)), float(weights.sum())
    place = np.floor((weights.cumsum() - weights) * pieces / total + _ROUNDING_SLACK).astype(np.int64)
    if np.bincount(place % _N_FOLDS, minlength=_N_FOLDS).min() < len(weights) // (2 * _N_FOLDS):
        place = np.arange(len(weights)) * pieces // len(weights)
    return [place % _N_FOLDS == fold for fold in ((2,) if total >= one_from else range(_N_FOLDS))]


def _pooled_rows(sample: StandardisedRows, plan: FitSettings) -> float:
    return min(float(sample.values.shape[1]), _MAX_POOLED_ROWS) if plan.covariance_type == "full" else 0.0


def _evaluate_candidate(
    sample: StandardisedRows,
    folds: list[NDArray[np.bool_]],
    weights: F64,
    k: int,
    task: FitContext,
    rng: np.random.Generator,
) -> _Candidate:
    """Return the log densities of the held-out rows with the shrinkage that is good enough for them."""
    plan = task.settings
    fits = []
    for held in folds:
        learn, test = sample.subset(~held), sample.subset(held)
        run = best_initialisation(learn, k, task, rng)
        factors = em.factorise(run.mixture)
        moments = e_step(learn, factors)
        fits.append((em.maximise_likelihood(run.mixture, factors, moments), moments.mass, test))

    def held_out(shrinkage: Shrinkage) -> F64:
        mixtures = (em.shrink_covariances(plain, mass, plan.covariance_type, shrinkage) for plain, mass, _ in fits)
        found = [log_densities(fit[2], em.factorise(mixture)) for fit, mixture in zip(fits, mixtures, strict=True)]
        return np.concatenate(found)

    shrinkage = task.shrinkage
    if plan.shrinkage is None:
        most = float(sample.values.shape[1])
        asked = [replace(shrinkage, prior_rows=rows) for rows in sorted({*_PRIOR_ROWS, most})]
        shrinkage, log_density = _first_near_best(asked, held_out, weights)
        if plan.n_components is not None and k > 1 and shrinkage.pooled_rows > 0:
            asked = [
                replace(shrinkage, pooled_rows=alike)
                for alike in sorted({shrinkage.pooled_rows, 1.0, 0.0}, reverse=True)
            ]
            shrinkage, log_density = _first_near_best(asked, held_out, weights)
    else:
        log_density = held_out(shrinkage)
    return _Candidate(em_result=run, shrinkage=shrinkage, log_density=log_density)


def _first_near_best(
    asked: list[Shrinkage], held_out: Callable[[Shrinkage], F64], weights: F64
) -> tuple[Shrinkage, F64]:
    """Return the first that is as good as the best or nearly, and its log densities."""
    found = [held_out(shrinkage) for shrinkage in asked]
    means = [_weighted_mean(values, weights) for values in found]
    first = next(i for i, mean in enumerate(means) if mean >= max(means) - _TOLERATED_LOSS_NATS)
    return asked[first], found[first]


def _most_likely(trials: dict[int, _Candidate], weights: F64) -> int:
    return max(trials, key=lambda k: _weighted_mean(trials[k].log_density, weights))


def _has_many_duplicates(sample: StandardisedRows, weights: F64) -> bool:
    """Return whether many rows equal another; one of weight two is two."""
    found = group_duplicates(sample.values, 1.0)
    return found is not None and len(found.first_index) < _MAX_DISTINCT_SHARE * float(weights.sum())


def _fewest_sufficient(trials: dict[int, _Candidate], weights: F64, enough: float) -> int:
    """Return the fewest components that reach enough of the gain, or lose no more than chance would have it."""
    best = trials[_most_likely(trials, weights)].log_density
    gain = _weighted_mean(best - trials[min(trials)].log_density, weights)
    for k, trial in trials.items():
        lost = best - trial.log_density
        mean = _weighted_mean(lost, weights)
        deviation = np.sqrt(_weighted_mean(np.square(lost - mean), weights) / len(lost))
        if mean <= max(deviation, (1 - enough) * gain):
            return k
    return _most_likely(trials, weights)


def _row_weights(rows: StandardisedRows) -> F64:
    return np.ones(len(rows.values)) if rows.weights is None else rows.weights.numpy()


def _weighted_mean(values: F64, weights: F64) -> float:
    return float(weights @ values / weights.sum())
