"""The reasons of an event as text: one line per cause, in the fields of the event."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from monitor.cli.output.reason_text import format_reasons
from monitor.detectors import VAEGMM, GaussianMixture, derive


def reason(feature: str, value: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    """Return one feature of an event as it is stored with an incident."""
    line = {"line": 0, "line_contribution": 40.0, "line_share": 0.97, "line_features": 1}
    known = {"feature": feature, "value": value, "low": low, "high": high, "field": feature, "role": "value"}
    return {**known, "z": 9.0, "cost": 1.0, "expected": 1e9, "alternatives": [], "contribution": 30.0, **line, **more}


def test_a_difference_from_the_level_is_told_with_the_field_and_its_level() -> None:
    reasons = [
        reason("amount.d", 340.0, -5.0, 6.0, field="amount", role="level_difference", line_features=3),
        reason("amount", 360.0, 5.0, 64.0, field="amount", line_features=3),
        reason("amount.r", 0.1, -0.9, 0.8, field="amount", role="variation", line_features=3),
    ]
    assert list(format_reasons(reasons)) == [
        "amount is 340 above its recent level of 20 (usually -5 to +6 from it); 97% of the excess energy"
    ]


def test_a_changed_variation_is_told_as_a_multiple_of_the_usual_one() -> None:
    variation = reason("amount.r", 2.5, -0.9, 0.8, field="amount", role="variation")
    assert list(format_reasons([variation])) == [
        "amount changes 12.1 times as much as usual from event to event; 97% of the excess energy"
    ]
    assert "amount has stopped changing from event to event" in next(format_reasons([variation | {"value": -2.9957}]))


def test_a_value_with_a_usual_difference_from_its_level_is_told_as_a_value() -> None:
    reasons = [
        reason("amount", 360.0, 5.0, 64.0, field="amount"),
        reason("amount.d", -1.0, -5.0, 6.0, field="amount", role="level_difference"),
    ]
    assert list(format_reasons(reasons)) == ["amount is 360, usually 5 to 64; 97% of the excess energy"]


def test_features_of_two_fields_on_one_line_are_told_field_by_field() -> None:
    reasons = [
        reason("a.d", -8.0, -1.0, 1.0, field="a", role="level_difference"),
        reason("b.d", 7.0, -1.0, 1.0, field="b", role="level_difference"),
    ]
    assert next(format_reasons(reasons)).startswith(
        "a is 8 below its recent level (usually -1 to +1 from it); b is 7 above its recent level"
    )


def test_several_expected_values_are_named() -> None:
    text = next(format_reasons([reason("speed", 20.0, 5.0, 40.0, expected=10.0, alternatives=[30.0])]))
    assert text == "speed: 20; usually 5 to 40, 10 or 30 expected from the other features; 97% of the excess energy"


def test_usual_values_on_one_line_are_unusual_together() -> None:
    pair = [
        reason("a", 0.0, -1.0, 51.0, expected=50.0, line_features=2),
        reason("b", 50.0, -1.0, 51.0, expected=0.0, line_features=2),
    ]
    assert next(format_reasons(pair)) == (
        "a and b: 0, 50; usually -1 to 51 and -1 to 51, unusual together, 50 expected for a and 0 expected for b "
        "from the other features; 97% of the excess energy"
    )


@pytest.fixture(scope="module")
def hosts() -> pd.DataFrame:
    """Return three hosts with levels of their own; the load of one jumps by 40 in the last row."""
    rng = np.random.default_rng(0)
    host = np.arange(900) % 3
    load = 100.0 * host + 100 + rng.normal(size=900)
    load[-1] += 40
    return pd.DataFrame({"host": host.astype(str), "load": load, "heat": rng.normal(size=900)})


@pytest.mark.parametrize("make", [lambda: GaussianMixture(3, random_state=0), lambda: VAEGMM(latent_dim=2)])
def test_a_jump_of_a_derived_feature_is_told_by_its_field(make: Any, hosts: pd.DataFrame) -> None:
    derived = derive(hosts, key="host", features=["load", "heat"])
    model = make()
    model.fit(derived.iloc[:-1], **({"epochs": 3} if isinstance(model, VAEGMM) else {}))
    model.derivation_ = model.derivation_ or derived.attrs["outrider_derivation"]
    explanation = model.explain(derived.iloc[-1:])
    assert explanation.line[0].tolist() == [0, 1, 0, 1, 0, 1]
    row = explanation.line_rows()[0][0]
    assert row["field"] == "load"
    assert explanation.lines(0)[0].share > 0.5
    assert "load is 39.9 above its recent level of 300.1 (" in next(format_reasons(explanation.line_rows()[0]))
