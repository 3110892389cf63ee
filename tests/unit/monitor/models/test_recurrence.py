"""Recurring outliers are of a mode, outliers in usual episodes belong to the reference, scattered ones to neither."""

import numpy as np
import pytest

from monitor.models.recurrence import Recurrence, find_recurring

N = 2_000


def plant(outliers: np.ndarray, rows: np.ndarray, *, n: int = N, seed: int = 0) -> Recurrence:
    """Return the recurrence of outliers, proposed alone, at rows of a Gaussian body."""
    features = np.random.default_rng(seed).normal(size=(n, outliers.shape[1]))
    features[rows] = outliers
    proposed = np.zeros(n, np.bool_)
    proposed[rows] = True
    return find_recurring(features.astype(np.float32), proposed)


def draw_mode(n: int, dimensions: int = 8) -> np.ndarray:
    return 15 + 0.3 * np.random.default_rng(1).normal(size=(n, dimensions))


def test_events_of_a_mode_at_distant_times_recur() -> None:
    rows = np.array([100, 101, 900, 1_500])
    assert np.flatnonzero(plant(draw_mode(4), rows).recurring).tolist() == rows.tolist()


def test_a_flood_does_not_recur_across_the_border_of_two_tenths() -> None:
    found = plant(draw_mode(20), np.arange(590, 610))
    assert not found.recurring.any()
    assert not found.episodic.any()


@pytest.mark.parametrize("dimensions", [1, 2, 3, 8, 19])
@pytest.mark.parametrize("share", [0.005, 0.05])
def test_scattered_outliers_do_not_recur(dimensions: int, share: float) -> None:
    rng = np.random.default_rng(2)
    n = round(share * N)
    directions = rng.normal(size=(n, dimensions))
    directions /= np.abs(directions).max(axis=1, keepdims=True)
    found = plant(directions * rng.uniform(5, 15, (n, 1)), rng.choice(N, n, replace=False))
    assert found.recurring.sum() + found.episodic.sum() <= 0.1 * n


def test_episodes_in_four_tenths_are_usual() -> None:
    rows = np.concatenate([np.arange(5) + start for start in (100, 700, 1_100, 1_900)])
    centres = np.repeat(40 * np.eye(4, 8), 5, axis=0)
    found = plant(centres + 0.3 * draw_mode(20) / 15, rows)
    assert not found.recurring.any()
    assert np.flatnonzero(found.episodic).tolist() == rows.tolist()


def test_a_flood_beside_usual_episodes_adds_no_more_than_they_do() -> None:
    rows = np.concatenate([np.arange(5) + start for start in (100, 700, 1_100)] + [np.arange(1_500, 1_600)])
    centres = np.repeat(40 * np.eye(4, 8), [5, 5, 5, 100], axis=0)
    found = plant(centres + 0.1 * np.random.default_rng(1).normal(size=(115, 8)), rows)
    assert found.episodic.sum() == 20


def test_equal_events_and_single_outliers_do_not_recur() -> None:
    proposed = np.arange(N) == 7
    assert not find_recurring(np.ones((N, 3), np.float32), proposed).recurring.any()
    assert not plant(np.full((1, 3), 1e30), np.array([7])).recurring.any()
    assert not find_recurring(np.ones((N, 3), np.float32), np.zeros(N, np.bool_)).recurring.any()


def test_an_event_equal_to_a_kept_event_and_a_distant_one_recurs() -> None:
    features = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    features[[2, 15]] = features[8]
    proposed = np.isin(np.arange(20), [2, 15])
    assert find_recurring(features, proposed).recurring.sum() == 2


def test_wide_events_take_bounded_work() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(10_000, 128)).astype(np.float32)
    proposed = np.arange(10_000) % 10 == 0
    features[proposed] += 20
    assert find_recurring(features, proposed).recurring.sum() == 1_000
