"""Changes of drift statistics in the units of the features, without the numbers of components."""

from dataclasses import replace

import numpy as np

from monitor.incidents.drift_text import describe_changes, summarise_change
from tests.unit.monitor.incidents.test_drift_horizons import STATISTICS

NAMED = replace(STATISTICS, shape=(3, 2, 1), components=("near load 20", "near load 500, heat 3"))
BEFORE = np.array([0.5, 0.5, 0.5, 1 / 12, 1 / 12, 1 / 12, 0.12, 0.88, 0.1])
AFTER = np.array([0.7, 0.5, 0.5, 1 / 24, 1 / 12, 0.1, 0.35, 0.65, 0.9])


def describe(*indices: int) -> list[str]:
    return list(describe_changes(indices, BEFORE, AFTER, AFTER - BEFORE, NAMED))


def test_rank_and_spread_of_a_feature_are_one_change() -> None:
    clauses = describe(0, 3)
    assert len(clauses) == 1
    assert clauses[0].startswith("load is typically 0.")
    assert clauses[0].endswith("(+0.20 deviations)")


def test_a_component_is_described_by_its_centre_and_share() -> None:
    assert describe(6) == ["events near load 20 are 35.0% of all, were 12.0% (+0.23 deviations)"]


def test_a_spread_is_told_as_the_range_of_the_values() -> None:
    clause = describe(5)[0]
    assert clause.startswith("energy is ")
    assert "in 90% of the events" in clause


def test_a_pair_is_told_by_its_features() -> None:
    assert "mean product of load and heat, as deviations from their training means, is 0.9, was 0.1" in describe(8)[0]


def test_values_are_stored_for_features_and_the_energy_only() -> None:
    change = summarise_change(0, BEFORE, AFTER, NAMED)
    assert set(change) == {"values_before", "values_after"}
    assert change["values_after"]["median"] > change["values_before"]["median"]
    assert summarise_change(2, BEFORE, AFTER, NAMED)["values_before"]["mean"] is None
    assert summarise_change(6, BEFORE, AFTER, NAMED) == {}
