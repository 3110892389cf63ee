"""Distributions of features side by side: shares, quantiles and their errors."""

import numpy as np
import pytest

from monitor.statistics.feature_histograms import (
    BINS,
    compare,
    decode_quantiles,
    encode_quantiles,
    from_quantiles,
    from_sample,
    mean_of,
    quantiles_of,
    to_quantiles,
)

RNG = np.random.default_rng(5)


def test_histograms_of_both_sides_share_their_bins_and_sum_to_one() -> None:
    before, after = RNG.normal(0, 1, (4_000, 1)), RNG.normal(2, 1, (4_000, 1))
    (found,) = compare(
        ("amount",), training=None, before=from_sample(before, np.ones(4_000)), after=from_sample(after, np.ones(4_000))
    )
    assert found.training is None
    assert len(found.edges) == BINS + 1
    for side, values in ((found.before, before), (found.after, after)):
        assert side is not None
        assert sum(side.shares) == pytest.approx(1)
        inner = np.histogram(values, found.edges)[0][1:-1] / len(values)
        assert side.shares[1:-1] == pytest.approx(inner, abs=1e-9)
        assert side.quantiles == pytest.approx(np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]), abs=0.01)


def test_interval_of_a_sampled_quantile_holds_the_true_one() -> None:
    held = 0
    for _ in range(200):
        (found,) = compare(("x",), training=None, before=None, after=from_sample(RNG.normal(size=(60, 1)), np.ones(60)))
        assert found.after is not None
        held += found.after.lower[2] <= 0 <= found.after.upper[2]
    assert held >= 180


def test_weights_count_as_repeated_events() -> None:
    values = np.array([[1.0], [2.0], [3.0], [9.0]])
    weighted = from_sample(values, np.array([1.0, 1.0, 1.0, 5.0]))
    assert mean_of(weighted, 0) == pytest.approx((1 + 2 + 3 + 5 * 9) / 8)
    assert quantiles_of(weighted, 0)[3] == 9.0
    assert weighted.effective == pytest.approx(64 / 28)


def test_stored_quantiles_give_the_shares_of_the_sample_within_a_rank() -> None:
    sample = from_sample(RNG.gamma(2, 3, (6_400, 2)), np.ones(6_400))
    stored = decode_quantiles(encode_quantiles(to_quantiles(sample)))
    assert stored.shape == (2, 63)
    for found in compare(("a", "b"), training=from_quantiles(stored, 6_400), before=None, after=sample):
        assert found.training is not None
        assert found.after is not None
        of_training, of_sample = np.cumsum(found.training.shares), np.cumsum(found.after.shares)
        assert np.abs(of_training - of_sample).max() < 1 / 64
        assert found.training.quantiles == pytest.approx(found.after.quantiles, rel=0.05)


def test_constant_feature_is_in_one_bin() -> None:
    constant = from_sample(np.full((10, 1), 7.0), np.ones(10))
    (found,) = compare(("x",), training=from_quantiles(np.full((1, 63), 7.0), 100), before=None, after=constant)
    assert found.after is not None
    assert found.after.quantiles == (7.0,) * 5
    assert max(found.after.shares) == pytest.approx(1)
