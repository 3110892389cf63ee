"""The training profile: ranks among the training values, with ties and constants."""

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


def test_ranks_equal_those_of_a_binary_search() -> None:
    columns = np.stack([NORMAL[:999], np.round(NORMAL[:999]), *RNG.standard_normal((9, 999))]).astype(np.float32)
    edges = np.stack([quantile_edges(column) for column in columns])
    found = centred_ranks(columns, edges)
    for column, edge, ranks in zip(columns, edges, found, strict=True):
        both = np.searchsorted(edge, column, "left") + np.searchsorted(edge, column, "right") - 63
        assert ranks.tolist() == both.tolist()


def test_training_values_fill_the_bins_evenly() -> None:
    counts = np.bincount(ranks_of(NORMAL, NORMAL).astype(int) + 63)[::2]
    assert len(counts) == 64
    assert counts == pytest.approx(len(NORMAL) / 64, abs=2)


def test_values_beyond_the_training_range_have_the_outermost_ranks() -> None:
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
def test_mean_rank_of_discrete_training_values_is_zero(values: np.ndarray) -> None:
    ranks = ranks_of(values, values) / 128
    assert abs(ranks.mean()) < 0.02


def test_constant_feature_has_the_middle_rank_until_it_changes() -> None:
    constant = np.full(500, 3.0, np.float32)
    assert ranks_of(np.array([2.9, 3.0, 3.1], np.float32), constant).tolist() == [-63, 0, 63]


def test_units_are_those_of_the_feature_and_above_zero() -> None:
    columns = [NORMAL, np.full(len(NORMAL), 5, np.float32), (NORMAL > 1).astype(np.float32)]
    profile = build_feature_profile(np.stack(columns, axis=1))
    assert profile.rank_deviation[0] == pytest.approx(RANK_UNIT, rel=0.01)
    assert profile.spread_deviation[0] == pytest.approx(SPREAD_UNIT, rel=0.01)
    assert profile.rank_deviation[1] == RANK_UNIT / 10
    assert profile.deviation[1] == 0
    assert profile.centre[2] == pytest.approx((NORMAL > 1).mean())


def test_value_at_rank_is_in_the_unit_of_the_feature() -> None:
    edges = quantile_edges(NORMAL)
    assert value_at_rank(0.5, edges) == pytest.approx(0, abs=0.03)
    assert value_at_rank(0.841, edges) == pytest.approx(1, abs=0.03)
    assert value_at_rank(0.0, edges) == edges[0]


def test_small_training_set_has_ascending_edges() -> None:
    profile = build_feature_profile(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32))
    assert profile.edges.shape == (2, 63)
    assert (np.diff(profile.edges) >= 0).all()
