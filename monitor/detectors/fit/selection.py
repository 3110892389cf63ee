"""Selection of the number of components and of the shrinkage by held-out likelihood.

BIC uses the likelihood of the training rows. On discrete or duplicate values that likelihood grows without bound as
components become narrow, so BIC selects the maximum number of components, and the mixture overfits values that
occurred once. Held-out rows reveal the overfitting. Each fold is every fifth of fifty contiguous blocks of the
sample. Consecutive events are correlated, so single held-out rows would resemble the training rows, and a single
block at the end could come from another regime. With few rows each of the five folds is held out in turn
(cross-validation); with many rows one fold is enough.

The number of components with the highest likelihood is not the best for outlier detection. The last components
raise the density where it is high already, and a narrow component assigns high densities to rows many deviations
away. Therefore the smallest number is selected that reaches most of the possible gain. With many duplicates a
smaller part of the gain is enough.

For the same reason each of several components gets pseudo-observations with the components' average covariance, one
per column and at most ten. They bound its confidence in directions in which it has few rows. With an explicit
`n_components`, shrink less where held-out likelihood prefers it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from monitor.detectors.fit import em, initialisation
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
# Candidate numbers of pseudo-observations; the number of columns is another one. The smallest candidate is used whose
# held-out log-likelihood is at most this many nats per event below the best.
_PRIOR_ROWS = (0.0, 0.2, 1.0, 5.0, 20.0)
_TOLERATED_LOSS_NATS = 0.01
# Maximum number of pseudo-observations with the average covariance; below it, one per column. The AUROC on pima is
# .61 without them and .72 with them. On the 64 columns of digits, with 160 rows per component, 64 of them give .79
# and 10 give .92.
_MAX_POOLED_ROWS = 10.0
# Without pseudo-observations, an initialisation with a component on a few duplicates would have the best likelihood.
_INITIALISATION_PRIOR_ROWS = 1.0
# Sufficient fraction of the gain between one component and the best number. If a tenth of the rows are duplicates,
# the density at their values grows without bound, and this is a large part of the gain (KDD Cup 99, mammography).
SUFFICIENT_GAIN = 0.95
_SUFFICIENT_GAIN_WITH_DUPLICATES = 0.6
_MAX_DISTINCT_SHARE = 0.9
# With fewer rows, or fewer per component, no rows are held out: one component, no shrinkage.
_MIN_ROWS = 20
_MIN_ROWS_PER_COMPONENT = 5
_N_BLOCKS = 50
_N_FOLDS = 5
_ROUNDING_SLACK = 1e-6  # block boundaries do not depend on the rounding of the total weight
# From this number of rows on a single fold is enough; fewer are needed if only the shrinkage is selected.
_SINGLE_FOLD_ROWS = 5000
_SINGLE_FOLD_ROWS_SHRINKAGE = 500
# Initialisations are compared after this number of passes; only the best one continues.
_TRIAL_PASSES = 8
_TRIAL_ROWS = (1500, 6000)
_TRIAL_ROWS_PER_MEAN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSelection:
    """Selected model.

    Attributes:
        em_result: The result of EM on the sample.
        shrinkage: The selected shrinkage.
        held_out_log_likelihoods: The mean held-out log-likelihood by number of components; empty unless the number
            was selected.
    """

    em_result: EMResult
    shrinkage: Shrinkage
    held_out_log_likelihoods: dict[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """Candidate number of components: its last EM result, best shrinkage and held-out log densities."""

    em_result: EMResult
    shrinkage: Shrinkage
    log_density: F64


def select_model(
    sample: StandardisedRows, context: FitContext, rng: np.random.Generator, *, final: bool = True
) -> ModelSelection:
    """Select the number of components and the shrinkage where the settings do not fix them, and fit the sample.

    Args:
        sample: The sample of the rows.
        context: Settings, shrinkage and process group.
        rng: The random generator of the initialisations.
        final: False if EM continues on more rows. The EM result of the rows that were not held out is then
            sufficient.
    """
    settings = context.settings
    row_weights = _row_weights(sample)
    # Kish's effective sample size: if a few rows dominate the total weight, no rows are held out.
    n = int(row_weights.sum() ** 2 / np.square(row_weights).sum() + _ROUNDING_SLACK)
    n_components = settings.n_components
    counts = (
        [n_components] if n_components else list(range(1, min(MAX_AUTO_COMPONENTS, n // _MIN_ROWS_PER_COMPONENT) + 1))
    )
    is_open = n_components is None or (settings.shrinkage is None and n_components > 1)
    if not is_open or n < _MIN_ROWS or n < _MIN_ROWS_PER_COMPONENT * counts[0]:
        return ModelSelection(
            em_result=best_initialisation(sample, n_components or 1, context, rng),
            shrinkage=context.shrinkage,
            held_out_log_likelihoods={},
        )
    if settings.shrinkage is None:
        context = replace(
            context,
            shrinkage=replace(
                context.shrinkage, prior_rows=_INITIALISATION_PRIOR_ROWS, pooled_rows=_pooled_rows(sample, settings)
            ),
        )
    folds = _make_folds(row_weights, _SINGLE_FOLD_ROWS if n_components is None else _SINGLE_FOLD_ROWS_SHRINKAGE)
    weights = np.concatenate([row_weights[held] for held in folds])
    candidates: dict[int, _Candidate] = {}
    for k in counts:
        candidates[k] = _evaluate_candidate(sample, folds, weights, k, context, rng)
        if k > min(candidates) + 2 and _most_likely(candidates, weights) <= k - 3:
            break
    sufficient = (
        _SUFFICIENT_GAIN_WITH_DUPLICATES
        if n_components is None and _has_many_duplicates(sample, row_weights)
        else SUFFICIENT_GAIN
    )
    k = _fewest_sufficient(candidates, weights, sufficient)
    shrinkage = candidates[k].shrinkage
    selected = replace(context, shrinkage=shrinkage)
    result = candidates[k].em_result
    if len(folds) > 1:
        result = best_initialisation(sample, k, selected, rng)
    elif final:
        result = expectation_maximisation(sample.deduplicated(), result.mixture, selected, None)
    mean_log_likelihoods = {
        count: _weighted_mean(candidate.log_density, weights) for count, candidate in candidates.items()
    }
    return ModelSelection(
        em_result=result,
        shrinkage=shrinkage,
        held_out_log_likelihoods=mean_log_likelihoods if n_components is None else {},
    )


def best_initialisation(sample: StandardisedRows, k: int, context: FitContext, rng: np.random.Generator) -> EMResult:
    """Return the EM result on the sample from the best of `n_init` initialisations, compared on a subset."""
    settings = context.settings
    subset = sample
    n, d = sample.values.shape
    sufficient = int(np.clip(_TRIAL_ROWS_PER_MEAN * k * d, *_TRIAL_ROWS))
    if settings.n_init > 1 and k > 1 and n > sufficient:
        chosen = np.zeros(n, dtype=bool)
        chosen[rng.choice(n, sufficient, replace=False)] = True
        subset = sample.subset(chosen)
    z, weights = subset.to_float32()
    best: EMResult | None = None
    for _ in range(settings.n_init if k > 1 else 1):
        centres = initialisation.kmeans_plus_plus(z, weights, k, rng, settings.contamination)
        core_weights = (
            initialisation.trim_farthest(
                initialisation.squared_distance_to_nearest(z, centres), weights, settings.contamination
            )
            if k > 1
            else weights
        )
        centres, labels = initialisation.k_means(z, core_weights, centres)
        unshrunk, mass = initialisation.mixture_from_labels(z, core_weights, labels, len(centres))
        mixture = em.shrink_covariances(unshrunk, mass, settings.covariance_type, context.shrinkage)
        result = expectation_maximisation(subset, mixture, context, None, _TRIAL_PASSES)
        if best is None or result.log_likelihood > best.log_likelihood:
            best = result
    assert best is not None
    if subset is sample and (best.converged or settings.max_iter <= _TRIAL_PASSES):
        return best
    rest = expectation_maximisation(sample.deduplicated(), best.mixture, context, None)
    return replace(rest, log_likelihoods=best.log_likelihoods + rest.log_likelihoods)


def bic(log_likelihood: float, parameters: int, rows: int) -> float:
    """Return Schwarz's information criterion; smaller is better."""
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


def _make_folds(weights: F64, single_fold_weight: int) -> list[NDArray[np.bool_]]:
    """Return the mask of the held-out rows of each fold; a single fold if the total weight is at least the threshold.

    Blocks have equal weights, because weights count rows. If a few rows dominate the total weight, folds would be too
    small, and blocks have equal numbers of rows.
    """
    n_blocks, total = min(_N_BLOCKS, len(weights)), float(weights.sum())
    block = np.floor((weights.cumsum() - weights) * n_blocks / total + _ROUNDING_SLACK).astype(np.int64)
    if np.bincount(block % _N_FOLDS, minlength=_N_FOLDS).min() < len(weights) // (2 * _N_FOLDS):
        block = np.arange(len(weights)) * n_blocks // len(weights)
    return [block % _N_FOLDS == fold for fold in ((2,) if total >= single_fold_weight else range(_N_FOLDS))]


def _pooled_rows(sample: StandardisedRows, settings: FitSettings) -> float:
    return min(float(sample.values.shape[1]), _MAX_POOLED_ROWS) if settings.covariance_type == "full" else 0.0


def _evaluate_candidate(
    sample: StandardisedRows,
    folds: list[NDArray[np.bool_]],
    weights: F64,
    k: int,
    context: FitContext,
    rng: np.random.Generator,
) -> _Candidate:
    """Fit k components without each fold, and select the shrinkage by the held-out rows' log densities."""
    settings = context.settings
    fits = []
    for held in folds:
        train, test = sample.subset(~held), sample.subset(held)
        result = best_initialisation(train, k, context, rng)
        factors = em.factorise(result.mixture)
        moments = e_step(train, factors)
        fits.append((em.maximise_likelihood(result.mixture, factors, moments), moments.mass, test))

    def held_out(shrinkage: Shrinkage) -> F64:
        mixtures = (
            em.shrink_covariances(unshrunk, mass, settings.covariance_type, shrinkage) for unshrunk, mass, _ in fits
        )
        log_density = [
            log_densities(fit[2], em.factorise(mixture)) for fit, mixture in zip(fits, mixtures, strict=True)
        ]
        return np.concatenate(log_density)

    shrinkage = context.shrinkage
    if settings.shrinkage is None:
        n_columns = float(sample.values.shape[1])
        candidates = [replace(shrinkage, prior_rows=rows) for rows in sorted({*_PRIOR_ROWS, n_columns})]
        shrinkage, log_density = _first_near_best(candidates, held_out, weights)
        if settings.n_components is not None and k > 1 and shrinkage.pooled_rows > 0:
            candidates = [
                replace(shrinkage, pooled_rows=pooled_rows)
                for pooled_rows in sorted({shrinkage.pooled_rows, 1.0, 0.0}, reverse=True)
            ]
            shrinkage, log_density = _first_near_best(candidates, held_out, weights)
    else:
        log_density = held_out(shrinkage)
    return _Candidate(em_result=result, shrinkage=shrinkage, log_density=log_density)


def _first_near_best(
    candidates: list[Shrinkage], held_out: Callable[[Shrinkage], F64], weights: F64
) -> tuple[Shrinkage, F64]:
    """Return the first candidate that is about as good as the best, and its held-out log densities."""
    log_densities_by_candidate = [held_out(shrinkage) for shrinkage in candidates]
    means = [_weighted_mean(values, weights) for values in log_densities_by_candidate]
    first = next(i for i, mean in enumerate(means) if mean >= max(means) - _TOLERATED_LOSS_NATS)
    return candidates[first], log_densities_by_candidate[first]


def _most_likely(candidates: dict[int, _Candidate], weights: F64) -> int:
    return max(candidates, key=lambda k: _weighted_mean(candidates[k].log_density, weights))


def _has_many_duplicates(sample: StandardisedRows, weights: F64) -> bool:
    """Return True if many rows are duplicates. A row of weight two counts as two."""
    distinct = group_duplicates(sample.values, 1.0)
    return distinct is not None and len(distinct.first_index) < _MAX_DISTINCT_SHARE * float(weights.sum())


def _fewest_sufficient(candidates: dict[int, _Candidate], weights: F64, sufficient: float) -> int:
    """Return the smallest k that reaches the sufficient gain, or loses no more than one standard error."""
    best = candidates[_most_likely(candidates, weights)].log_density
    gain = _weighted_mean(best - candidates[min(candidates)].log_density, weights)
    for k, candidate in candidates.items():
        loss = best - candidate.log_density
        mean = _weighted_mean(loss, weights)
        deviation = np.sqrt(_weighted_mean(np.square(loss - mean), weights) / len(loss))
        if mean <= max(deviation, (1 - sufficient) * gain):
            return k
    return _most_likely(candidates, weights)


def _row_weights(rows: StandardisedRows) -> F64:
    return np.ones(len(rows.values)) if rows.weights is None else rows.weights.numpy()


def _weighted_mean(values: F64, weights: F64) -> float:
    return float(weights @ values / weights.sum())
