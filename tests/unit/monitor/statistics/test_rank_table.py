"""Ranks by table lookup: equal to a comparison with every edge, for any values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from monitor.statistics.rank_table import RankTable
from monitor.statistics.training_profile import centred_ranks, quantile_edges

RNG = np.random.default_rng(11)
NORMAL = RNG.standard_normal(5_000)
DISTRIBUTIONS = {
    "normal": NORMAL,
    "far from zero": 1.7e9 + 1e5 * NORMAL,
    "skewed": np.exp(3 * NORMAL),
    "skewed to the left": -np.exp(3 * NORMAL),
    "two humps": np.where(NORMAL > 0, NORMAL, NORMAL + 500),
    "counts": np.floor(np.exp(2 * NORMAL)),
    "half zeros": np.where(NORMAL < 0, 0, NORMAL),
    "binary": NORMAL > 1,
    "constant": np.full(5_000, 3.25),
    "subnormal": 1e-42 * NORMAL,
    "to the ends": 1e38 * np.clip(NORMAL, -3, 3),
}
FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


def ranks_by_comparison(values: np.ndarray, edges: np.ndarray) -> list[list[int]]:
    return centred_ranks(np.ascontiguousarray(values.T), edges).T.tolist()


def neighbours_of(edges: np.ndarray) -> np.ndarray:
    """Return the edges, their neighbouring floats, and the largest floats."""
    ends = np.array([-1, 1], np.float32) * np.finfo(np.float32).max
    near = [edges, *(np.nextafter(edges, end) for end in ends)]
    return np.concatenate([*near, np.broadcast_to(ends, (len(edges), 2))], axis=1).T


def test_ranks_equal_those_of_comparing_with_every_edge() -> None:
    training = np.array(list(DISTRIBUTIONS.values()), np.float32)
    edges = np.array([quantile_edges(column) for column in training])
    table = RankTable.from_edges(edges)
    for values in (training.T, neighbours_of(edges)):
        assert table.centred_ranks(values).tolist() == ranks_by_comparison(values, edges)


@pytest.mark.slow
@given(arrays.arrays(np.float32, st.integers(1, 200), elements=FINITE), st.lists(FINITE, min_size=1, max_size=20))
def test_ranks_are_exact_for_any_training_values(training: np.ndarray, others: list[float]) -> None:
    edges = quantile_edges(training)[None]
    values = np.concatenate([neighbours_of(edges), np.array(others, np.float32)[:, None]])
    assert RankTable.from_edges(edges).centred_ranks(values).tolist() == ranks_by_comparison(values, edges)


@pytest.mark.parametrize("distribution", ["normal", "far from zero", "skewed", "counts", "half zeros", "constant"])
def test_common_distributions_need_no_comparison_with_every_edge(distribution: str) -> None:
    assert not len(
        RankTable.from_edges(quantile_edges(DISTRIBUTIONS[distribution].astype(np.float32))[None]).shared_columns
    )


def test_columns_with_edges_in_a_shared_cell_are_compared() -> None:
    assert RankTable.from_edges(
        quantile_edges(DISTRIBUTIONS["skewed to the left"].astype(np.float32))[None]
    ).shared_columns.tolist() == [0]


def test_ranks_do_not_depend_on_the_other_rows() -> None:
    edges = np.array([quantile_edges(RNG.standard_normal(900).astype(np.float32)) for _ in range(7)])
    table, values = RankTable.from_edges(edges), RNG.standard_normal((20_000, 7)).astype(np.float32)
    cut = np.concatenate([table.centred_ranks(piece) for piece in np.array_split(values, 13)])
    assert cut.tobytes() == table.centred_ranks(values).tobytes()
    assert table.centred_ranks(values[:0]).shape == (0, 7)
