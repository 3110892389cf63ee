"""The vector of contributions of an incident."""

from typing import Any

from storage.control.contributions import find_contributions, find_last_contributions


def _event(**contributions: float) -> dict[str, Any]:
    return {"reasons": [{"field": name, "contribution": value} for name, value in contributions.items()]}


def test_contributions_of_events_sum_by_field_and_have_length_one() -> None:
    details = {"strangest": [_event(amount=3.0, hour=-1.0), _event(amount=3.0, distance=0.0)]}
    assert find_contributions(details) == {"amount": 0.9864, "distance": 0.0, "hour": -0.1644}


def test_drift_has_a_direction_and_tells_level_from_spread() -> None:
    drifted = [
        {"statistic": "rank", "feature": "amount", "effect": 0.6},
        {"statistic": "spread", "feature": "amount", "effect": -0.8},
        {"statistic": "energy_rank", "feature": None, "effect": 0.0},
    ]
    expected = {"amount": 0.6, "amount (spread)": -0.8, "energy": 0.0}
    assert find_contributions({"horizons": [{"drifted": drifted}]}) == expected


def test_findings_without_features_have_none() -> None:
    assert find_contributions({"strangest": []}) is None
    assert find_contributions({"strangest": [{"reasons": []}]}) is None
    assert find_contributions({"share": 0.5}) is None


def test_costs_of_older_versions_count_by_feature() -> None:
    assert find_contributions({"strangest": [{"reasons": [{"feature": "a", "cost": 2.0}]}]}) == {"a": 1.0}


def test_last_finding_with_features_of_a_stored_incident_counts() -> None:
    details = {
        "opened": {"strangest": [_event(amount=1.0)]},
        "repeated": {"strangest": [_event(hour=1.0)]},
        "resolved": {"reason": "clean"},
    }
    assert find_last_contributions(details) == {"hour": 1.0}
    assert find_last_contributions({"opened": {"share": 1.0}}) is None
