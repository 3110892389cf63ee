"""The yardstick of training: ranks that lie where training values lie, ties and constants included."""

import numpy as np
import pytest

from monitor.statistics.training_profile import (
    RANK_UNIT,
    SPREAD_UNIT,
    build_feature_profile,
    centred_ranks,
    quantile_edges,
    value_at_rank,
)

RNG = np.random.default_rng(7)
NORMAL = RNG.standard_normal(40_000).astype(np.float32)


def ranks_of(values: np.ndarray, training: np.ndarray) -> np.ndarray:
    return centred_ranks(values[None], quantile_edges(training)[None])[0]


def test_ranks_are_the_bins_that_a_search_finds() -> None:
    columns = np.stack([NORMAL[:999], np.round(NORMAL[:999]), *RNG.standard_normal((9, 999))]).astype(np.float32)
    edges = np.stack([quantile_edges(column) for column in columns])
    found = centred_ranks(columns, edges)
    for column, edge, ranks in zip(columns, edges, found, strict=True):
        both = np.searchsorted(edge, column, "left") + np.searchsorted(edge, column, "right") - 63
        assert ranks.tolist() == both.tolist()


def test_training_values_are_spread_evenly_over_the_bins() -> None:
    counts = np.bincount(ranks_of(NORMAL, NORMAL).astype(int) + 63)[::2]
    assert len(counts) == 64
    assert counts == pytest.approx(len(NORMAL) / 64, abs=2)


def test_a_value_below_all_and_above_all_has_the_outermost_rank() -> None:
    assert ranks_of(np.array([-99, 99], np.float32), NORMAL).tolist() == [-63, 63]


@pytest.mark.parametrize(
    "values",
    [
        (RNG.random(20_000) < 0.3).astype(np.float32),
        RNG.poisson(2, 20_000).astype(np.float32),
        np.where(RNG.random(20_000) < 0.5, 0, RNG.standard_normal(20_000)).astype(np.float32),
    ],
    ids=["binary", "counts", "half zeros"],
)
def test_the_mean_rank_of_discrete_training_values_is_in_the_middle(values: np.ndarray) -> None:
    ranks = ranks_of(values, values) / 128
    assert abs(ranks.mean()) < 0.02


def test_a_constant_feature_is_in_the_middle_until_it_changes() -> None:
    constant = np.full(500, 3.0, np.float32)
    assert ranks_of(np.array([2.9, 3.0, 3.1], np.float32), constant).tolist() == [-63, 0, 63]


def test_units_are_the_feature_s_own_and_never_nothing() -> None:
    columns = [NORMAL, np.full(len(NORMAL), 5, np.float32), (NORMAL > 1).astype(np.float32)]
    profile = build_feature_profile(np.stack(columns, axis=1))
    assert profile.rank_deviation[0] == pytest.approx(RANK_UNIT, rel=0.01)
    assert profile.spread_deviation[0] == pytest.approx(SPREAD_UNIT, rel=0.01)
    assert profile.rank_deviation[1] == RANK_UNIT / 10
    assert profile.deviation[1] == 0
    assert profile.centre[2] == pytest.approx((NORMAL > 1).mean())


def test_a_mean_rank_reads_in_the_feature_s_own_unit() -> None:
    edges = quantile_edges(NORMAL)
    assert value_at_rank(0.5, edges) == pytest.approx(0, abs=0.03)
    assert value_at_rank(0.841, edges) == pytest.approx(1, abs=0.03)
    assert value_at_rank(0.0, edges) == edges[0]


def test_a_short_training_set_has_edges_too() -> None:
    profile = build_feature_profile(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32))
    assert profile.edges.shape == (2, 63)
    assert (np.diff(profile.edges) >= 0).all()
