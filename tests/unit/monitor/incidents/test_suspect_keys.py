"""Suspect keys of a window: significant keys are named, others seldom."""

import numpy as np
import pytest
from scipy import stats

from monitor.incidents.suspect_keys import find_suspect_keys


def test_single_anomalous_key_is_found_with_its_ratio() -> None:
    keys = [("bob", 40, 30), ("amy", 50, 1), ("joe", 60, 1)]
    (suspect,) = find_suspect_keys(keys, distinct=100, events=5_000, outliers=55, clean_rate=0.005)
    assert (suspect.key, suspect.events, suspect.outliers) == ("bob", 40, 30)
    assert suspect.ratio == pytest.approx((30 / 40) / (25 / 4960))
    assert suspect.p_value == pytest.approx(stats.binom.sf(29, 40, 25 / 4960), rel=1e-6)


def test_no_key_is_suspect_if_all_are_anomalous() -> None:
    keys = [(f"key{i}", 50, 25) for i in range(20)]
    assert find_suspect_keys(keys, distinct=20, events=1_000, outliers=500, clean_rate=0.005) == []


def test_key_with_all_outliers_is_compared_with_the_clean_rate() -> None:
    (suspect,) = find_suspect_keys([("bob", 100, 20)], distinct=50, events=5_000, outliers=20, clean_rate=0.01)
    assert suspect.ratio == pytest.approx(20)


def test_equal_keys_are_seldom_suspect() -> None:
    rng = np.random.default_rng(1)
    named = 0
    for _ in range(400):
        n = rng.integers(5, 200, 100)
        x = rng.binomial(n, 0.02)
        keys = [(str(i), int(n[i]), int(x[i])) for i in range(100)]
        found = find_suspect_keys(keys, distinct=100, events=int(n.sum()), outliers=int(x.sum()), clean_rate=0.005)
        named += bool(found)
    assert named / 400 <= 0.05


def test_every_key_of_the_window_counts_as_tested() -> None:
    keys = [("bob", 40, 4)]
    few = find_suspect_keys(keys, distinct=1, events=5_000, outliers=54, clean_rate=0.005)
    assert [suspect.key for suspect in few] == ["bob"]
    assert find_suspect_keys(keys, distinct=5_000, events=5_000, outliers=54, clean_rate=0.005) == []
