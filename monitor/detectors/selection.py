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

from monitor.detectors import em, start
from monitor.detectors.em import Shrinkage
from monitor.detectors.passes import Plan, Run, Task, expectation_maximisation, log_densities, one_pass
from monitor.detectors.repeats import distinct
from monitor.detectors.rows import Rows

F64 = NDArray[np.float64]

LARGEST_AUTO = 8
# Made-up rows to choose from, beside as many as columns, and how many nats an event fewer of them may cost.
_PRIOR_ROWS = (0.0, 0.2, 1.0, 5.0, 20.0)
_INDIFFERENT = 0.01
# As many made-up rows as columns, up to this, vary as the components do on average. Without them pima's AUROC
# is .61, with them .72; 64 of them on the 64 columns of digits, 160 rows a component, give .79, and 10 .92.
_MOST_ALIKE = 10.0
# Without any, the start that wins is the one with a component on a handful of equal rows.
_PRIOR_OF_STARTS = 1.0
# The share of the gain from one component to the best number that is enough. Where a tenth of the rows equal another,
# the density grows without end where they lie, and much of the gain is that (KDD Cup 99, mammography).
_ENOUGH = 0.8
_ENOUGH_WITH_REPEATS = 0.6
_DISTINCT = 0.9
# With fewer rows, or fewer a component, nothing can be held out: one component, no shrinkage.
_FEWEST_ROWS = 20
_FEWEST_ROWS_EACH = 5
_PIECES = 50
_FOLDS = 5
_SLACK = 1e-6  # a piece begins with the same row however the sum of the weights is rounded
# With at least so many rows one fifth held out tells enough; to choose only the shrinkage, fewer do.
_ONE_FOLD = 5000
_ONE_FOLD_SHRINKAGE = 500
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
    """One number of components: a run of it, the shrinkage it wants, and its held-out log densities."""

    run: Run
    shrinkage: Shrinkage
    log_density: F64


def choose(sample: Rows, task: Task, rng: np.random.Generator, *, final: bool = True) -> Choice:
    """Return the components and shrinkage that the plan leaves open, and EM's end on the sample with them.

    Where passes over more rows follow and nothing is `final`, EM's end on the rows not held out will do.
    """
    plan = task.plan
    own = _weights(sample)
    # Kish's number of rows: of few that outweigh the rest none can be held out.
    n = int(own.sum() ** 2 / np.square(own).sum() + _SLACK)
    asked = plan.n_components
    counts = [asked] if asked else list(range(1, min(LARGEST_AUTO, n // _FEWEST_ROWS_EACH) + 1))
    open_question = asked is None or (plan.shrinkage is None and asked > 1)
    if not open_question or n < _FEWEST_ROWS or n < _FEWEST_ROWS_EACH * counts[0]:
        return Choice(run=best_start(sample, asked or 1, task, rng), shrinkage=task.shrinkage, held_out={})
    if plan.shrinkage is None:
        task = replace(task, shrinkage=replace(task.shrinkage, rows=_PRIOR_OF_STARTS, alike=_alike(sample, plan)))
    folds = _folds(own, _ONE_FOLD if asked is None else _ONE_FOLD_SHRINKAGE)
    weights = np.concatenate([own[held] for held in folds])
    trials: dict[int, _Trial] = {}
    for k in counts:
        trials[k] = _trial(sample, folds, weights, k, task, rng)
        if k > min(trials) + 2 and _best(trials, weights) <= k - 3:
            break
    enough = _ENOUGH_WITH_REPEATS if asked is None and _repeats(sample, own) else _ENOUGH
    k = _simplest(trials, weights, enough)
    shrinkage = trials[k].shrinkage
    settled = replace(task, shrinkage=shrinkage)
    run = trials[k].run
    if len(folds) > 1:
        run = best_start(sample, k, settled, rng)
    elif final:
        run = expectation_maximisation(sample.folded(), run.mixture, settled, None)
    found = {count: _mean(trial.log_density, weights) for count, trial in trials.items()}
    return Choice(run=run, shrinkage=shrinkage, held_out=found if asked is None else {})


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
        centres = start.plus_plus(z, weights, k, rng, plan.contamination)
        near = start.but_farthest(start.nearest_centre(z, centres), weights, plan.contamination) if k > 1 else weights
        centres, place = start.k_means(z, near, centres)
        raw, mass = start.from_places(z, near, place, len(centres))
        mixture = em.shrink(raw, mass, plan.covariance_type, task.shrinkage)
        run = expectation_maximisation(few, mixture, task, None, _TRIAL_PASSES)
        if best is None or run.log_likelihood > best.log_likelihood:
            best = run
    assert best is not None
    if few is sample and (best.converged or plan.max_iter <= _TRIAL_PASSES):
        return best
    rest = expectation_maximisation(sample.folded(), best.mixture, task, None)
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


def _folds(weights: F64, one_from: int) -> list[NDArray[np.bool_]]:
    """Return which rows each fold holds out; a single fold where they weigh as `one_from` rows.

    Pieces are cut by weight, which counts rows; by number where a few rows outweigh the rest and pieces would be empty.
    """
    pieces, total = min(_PIECES, len(weights)), float(weights.sum())
    place = np.floor((weights.cumsum() - weights) * pieces / total + _SLACK).astype(np.int64)
    if np.bincount(place % _FOLDS, minlength=_FOLDS).min() < len(weights) // (2 * _FOLDS):
        place = np.arange(len(weights)) * pieces // len(weights)
    return [place % _FOLDS == fold for fold in ((2,) if total >= one_from else range(_FOLDS))]


def _alike(sample: Rows, plan: Plan) -> float:
    return min(float(sample.values.shape[1]), _MOST_ALIKE) if plan.covariance_type == "full" else 0.0


def _trial(
    sample: Rows,
    folds: list[NDArray[np.bool_]],
    weights: F64,
    k: int,
    task: Task,
    rng: np.random.Generator,
) -> _Trial:
    """Return the log densities of the held-out rows with the shrinkage that is good enough for them."""
    plan = task.plan
    fits = []
    for held in folds:
        learn, test = sample.take(~held), sample.take(held)
        run = best_start(learn, k, task, rng)
        factors = em.factorise(run.mixture)
        moments = one_pass(learn, factors)
        fits.append((em.maximise(run.mixture, factors, moments), moments.mass, test))

    def held_out(shrinkage: Shrinkage) -> F64:
        mixtures = (em.shrink(plain, mass, plan.covariance_type, shrinkage) for plain, mass, _ in fits)
        found = [log_densities(fit[2], em.factorise(mixture)) for fit, mixture in zip(fits, mixtures, strict=True)]
        return np.concatenate(found)

    shrinkage = task.shrinkage
    if plan.shrinkage is None:
        most = float(sample.values.shape[1])
        asked = [replace(shrinkage, rows=rows) for rows in sorted({*_PRIOR_ROWS, most})]
        shrinkage, log_density = _good_enough(asked, held_out, weights)
        if plan.n_components is not None and k > 1 and shrinkage.alike > 0:
            asked = [replace(shrinkage, alike=alike) for alike in sorted({shrinkage.alike, 1.0, 0.0}, reverse=True)]
            shrinkage, log_density = _good_enough(asked, held_out, weights)
    else:
        log_density = held_out(shrinkage)
    return _Trial(run=run, shrinkage=shrinkage, log_density=log_density)


def _good_enough(asked: list[Shrinkage], held_out: Callable[[Shrinkage], F64], weights: F64) -> tuple[Shrinkage, F64]:
    """Return the first that is as good as the best or nearly, and its log densities."""
    found = [held_out(shrinkage) for shrinkage in asked]
    means = [_mean(values, weights) for values in found]
    first = next(i for i, mean in enumerate(means) if mean >= max(means) - _INDIFFERENT)
    return asked[first], found[first]


def _best(trials: dict[int, _Trial], weights: F64) -> int:
    return max(trials, key=lambda k: _mean(trials[k].log_density, weights))


def _repeats(sample: Rows, weights: F64) -> bool:
    """Return whether many rows equal another; one of weight two is two."""
    found = distinct(sample.values, 1.0)
    return found is not None and len(found.first) < _DISTINCT * float(weights.sum())


def _simplest(trials: dict[int, _Trial], weights: F64, enough: float) -> int:
    """Return the fewest components that reach enough of the gain, or lose no more than chance would have it."""
    best = trials[_best(trials, weights)].log_density
    gain = _mean(best - trials[min(trials)].log_density, weights)
    for k, trial in trials.items():
        lost = best - trial.log_density
        mean = _mean(lost, weights)
        deviation = np.sqrt(_mean(np.square(lost - mean), weights) / len(lost))
        if mean <= max(deviation, (1 - enough) * gain):
            return k
    return _best(trials, weights)


def _weights(rows: Rows) -> F64:
    return np.ones(len(rows.values)) if rows.weights is None else rows.weights.numpy()


def _mean(values: F64, weights: F64) -> float:
    return float(weights @ values / weights.sum())
