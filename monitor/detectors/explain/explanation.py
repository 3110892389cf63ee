"""Detectors: why an event is strange, as columns and as rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureReason:
    """One feature's part in one event's energy."""

    feature: str
    value: float
    z: float
    cost: float
    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """For n events and D features: conditional z-score, cost, expected value and likely range.

    All but `features` are (n, D). `expected` is the value to expect of a feature given the event's other
    features, `low` to `high` holds it in about 95 of 100 ordinary events (two deviations), both in the
    feature's own unit; `z` counts deviations from `expected`; `cost` is the energy, in nats, that goes
    away when the value is replaced by `expected` (negative where the value was likelier than that).
    """

    features: tuple[str, ...]
    value: F64
    z: F64
    cost: F64
    expected: F64
    low: F64
    high: F64

    def __len__(self) -> int:
        return len(self.z)

    def __iter__(self) -> Iterator[list[FeatureReason]]:
        return (self.reasons(event) for event in range(len(self)))

    def reasons(self, event: int, top: int | None = None) -> list[FeatureReason]:
        """Return the features of one event, the costliest first."""
        order = np.argsort(-self.cost[event], kind="stable")[:top]
        return [
            FeatureReason(
                feature=self.features[j],
                value=float(self.value[event, j]),
                z=float(self.z[event, j]),
                cost=float(self.cost[event, j]),
                expected=float(self.expected[event, j]),
                low=float(self.low[event, j]),
                high=float(self.high[event, j]),
            )
            for j in order
        ]

    def rows(self, top: int | None = None) -> list[list[dict[str, float | str]]]:
        """Return the same as plain dictionaries, for JSON; `top` keeps that many features an event."""
        return [
            [
                {
                    "feature": r.feature,
                    "value": r.value,
                    "z": r.z,
                    "cost": r.cost,
                    "expected": r.expected,
                    "low": r.low,
                    "high": r.high,
                }
                for r in self.reasons(event, top)
            ]
            for event in range(len(self))
        ]
