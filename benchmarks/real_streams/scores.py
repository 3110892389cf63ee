"""Scores of other methods for the events of a series: fitted on its head, higher is more anomalous."""

from collections.abc import Callable

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest

from benchmarks.real_streams.series import Float64, Series
from config.time_format import HOUR_US

MIN_HOUR_EVENTS = 20
LAGS = 12
EXPLAINED_VARIANCE = 0.95
SEED = 0


def score_by_z(series: Series) -> Float64:
    """Return the largest |z| of each event over its features, by mean and deviation of the head."""
    features = fill_missing(series)
    return np.abs(_standardise(features, features[: series.head])).max(axis=1)


def score_by_hour_z(series: Series) -> Float64:
    """Return the largest |z| of each event within its hour of the day; an hour with under 20 events uses the head."""
    hours, head = series.times_us // HOUR_US % 24, np.arange(len(series.times_us)) < series.head
    features, scores = fill_missing(series), score_by_z(series)
    for hour in range(24):
        own = hours == hour
        if (own & head).sum() >= MIN_HOUR_EVENTS:
            scores[own] = np.abs(_standardise(features[own], features[own & head])).max(axis=1)
    return scores


def score_by_isolation_forest(series: Series) -> Float64:
    """Return the scores of scikit-learn's isolation forest."""
    features = fill_missing(series)
    forest = IsolationForest(n_estimators=200, random_state=SEED).fit(features[: series.head])
    return -forest.score_samples(features)


def score_by_lagged_pca(series: Series) -> Float64:
    """Return the residuals of the last 12 events, as one vector, from the principal components of the head.

    The components explain 95% of the variance. The first 11 events have the residual of the 12th.
    """
    features = fill_missing(series)
    z = _standardise(features, features[: series.head])
    lagged = np.lib.stride_tricks.sliding_window_view(z, LAGS, axis=0).reshape(len(z) - LAGS + 1, -1)
    pca = PCA(EXPLAINED_VARIANCE, svd_solver="full").fit(lagged[: series.head - LAGS + 1])
    residuals = np.linalg.norm(lagged - pca.inverse_transform(pca.transform(lagged)), axis=1)
    return np.concatenate([np.full(LAGS - 1, residuals[0]), residuals])


def score_by_ecod(series: Series) -> Float64:
    """Return the scores of PyOD's ECOD."""
    from pyod.models.ecod import ECOD

    features = fill_missing(series)
    return np.asarray(ECOD().fit(features[: series.head]).decision_function(features), np.float64)


def score_by_hbos(series: Series) -> Float64:
    """Return the scores of PyOD's HBOS."""
    from pyod.models.hbos import HBOS

    features = fill_missing(series)
    return np.asarray(HBOS().fit(features[: series.head]).decision_function(features), np.float64)


def score_by_half_space_trees(series: Series) -> Float64:
    """Return the scores of river's half-space trees, which learn each event after scoring it."""
    from river import anomaly

    features = fill_missing(series)
    low, high = features[: series.head].min(axis=0), features[: series.head].max(axis=0)
    scaled = np.clip((features - low) / np.where(high > low, high - low, 1.0), 0, 1)
    trees = anomaly.HalfSpaceTrees(seed=SEED, n_trees=25)
    scores = np.empty(len(scaled))
    for at, row in enumerate(scaled.tolist()):
        x = dict(enumerate(row))
        scores[at] = trees.score_one(x)
        trees.learn_one(x)
    return scores


def fill_missing(series: Series) -> Float64:
    """Return the features with the mean of the head in place of missing values."""
    features = series.features
    return np.where(np.isnan(features), np.nanmean(features[: series.head], axis=0), features)


def _standardise(features: Float64, reference: Float64) -> Float64:
    deviation = reference.std(axis=0)
    return (features - reference.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)


SCORES: dict[str, Callable[[Series], Float64]] = {
    "max-z": score_by_z,
    "hour-z": score_by_hour_z,
    "isolation-forest": score_by_isolation_forest,
    "lagged-pca": score_by_lagged_pca,
    "ecod": score_by_ecod,
    "hbos": score_by_hbos,
    "half-space-trees": score_by_half_space_trees,
}
"""The other methods by name."""
