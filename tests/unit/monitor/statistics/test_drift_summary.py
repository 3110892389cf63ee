"""Values of a feature in a horizon, from its mean rank and its spread, against the values themselves."""

import numpy as np
import pytest

from monitor.statistics.drift_summary import ValueSummary, summarise_ranks
from monitor.statistics.training_profile import N_BINS, build_feature_profile, centred_ranks

RNG = np.random.default_rng(7)
TRAINING = {
    "normal": RNG.normal(20, 4, (20_000, 1)),
    "skewed": RNG.exponential(30, (20_000, 1)),
    "constant": np.full((20_000, 1), 7.0),
}


def summarise(kind: str, values: np.ndarray) -> ValueSummary:
    """Return the summary of values by the integer sums of the drift test."""
    profile = build_feature_profile(TRAINING[kind].astype(np.float32))
    ranks = centred_ranks(np.asarray(values, np.float32)[None], profile.edges)[0].astype(np.float64) / (2 * N_BINS)
    return summarise_ranks(
        float(ranks.mean() + 0.5), float(np.square(ranks).mean()), profile.edges[0], float(profile.centre[0])
    )


@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_summary_of_the_training_values_is_that_of_their_profile(kind: str) -> None:
    values = TRAINING[kind][:, 0]
    found = summarise(kind, values)
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
    tolerance = 0.03 * values.std()
    assert found.mean == pytest.approx(values.mean(), abs=tolerance)
    assert found.median == pytest.approx(median, abs=tolerance)
    assert (found.low, found.high) == pytest.approx((low, high), abs=2 * tolerance)
    assert found.exceeded == ()


@pytest.mark.parametrize(("shift", "scale"), [(2.0, 1.0), (-2.0, 1.0), (0.0, 0.5), (1.0, 0.7)])
def test_shifted_and_narrowed_values_are_found_within_a_quarter_deviation(shift: float, scale: float) -> None:
    values = 20 + shift + 4 * scale * RNG.standard_normal(20_000)
    found = summarise("normal", values)
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
    for value, expected in ((found.mean, values.mean()), (found.median, median), (found.low, low), (found.high, high)):
        assert value == pytest.approx(expected, abs=1.0)


def test_quantiles_beyond_the_training_values_are_marked() -> None:
    found = summarise("normal", np.full(1_000, 90.0))
    assert set(found.exceeded) == {"low", "median", "high"}
    assert found.median == pytest.approx(np.quantile(TRAINING["normal"], 1 - 1 / N_BINS), abs=0.2)


def test_a_constant_feature_has_its_value() -> None:
    found = summarise("constant", np.full(100, 7.0))
    assert (found.mean, found.median, found.low, found.high, found.exceeded) == (7.0, 7.0, 7.0, 7.0, ())
