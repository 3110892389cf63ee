"""The contributions of the features to an incident, as one vector for the search of similar ones. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DIGITS = 4


def find_contributions(details: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the share of each feature in a finding, of length 1, rounded; None for one that names no features.

    The features of the most anomalous events of a spike or slow rise contribute nats to the energy, of which the mean
    is taken by field. Those of a drift contribute their effect in training deviations: a shift in either direction, and
    a change of the spread apart from it.

    Args:
        details: The details of one transition.
    """
    if details.get("strangest"):
        return _normalise(_sum_reasons(details["strangest"]))
    if details.get("horizons"):
        return _normalise(_sum_effects(details["horizons"][0].get("drifted", ())))
    return None


def find_last_contributions(details: Mapping[str, Mapping[str, Any]]) -> dict[str, float] | None:
    """Return the contributions of the last finding of an incident, from its details by type of transition."""
    found = [find_contributions(details.get(name, {})) for name in ("repeated", "escalated", "reopened", "opened")]
    return next((each for each in found if each is not None), None)


def _sum_reasons(events: Any) -> dict[str, float]:
    sums: dict[str, float] = {}
    for event in events:
        for reason in event.get("reasons", ()):
            # Incidents of older versions have costs, which do not add up.
            value = reason.get("contribution", reason.get("cost"))
            name = reason.get("field") or reason.get("feature")
            if isinstance(value, int | float) and name:
                sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def _sum_effects(statistics: Any) -> dict[str, float]:
    effects: dict[str, float] = {}
    for each in statistics:
        kind = str(each.get("statistic", ""))
        name = str(each.get("feature") or "energy") + (" (spread)" if kind.endswith("spread") else "")
        if isinstance(each.get("effect"), int | float):
            effects.setdefault(name, float(each["effect"]))
    return effects


def _normalise(vector: Mapping[str, float]) -> dict[str, float] | None:
    length = sum(value**2 for value in vector.values()) ** 0.5
    if not length > 0:
        return None
    return {name: round(value / length, _DIGITS) for name, value in sorted(vector.items())}
