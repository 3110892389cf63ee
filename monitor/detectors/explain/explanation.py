"""Explanations of energies, as columns and as rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureReason:
    """Contribution of one feature to the energy of one event; the fields are those of `Explanation`."""

    feature: str
    value: float
    z: float
    cost: float
    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Explanation of the energies of n events with D features.

    All arrays are (n, D).

    Attributes:
        features: The feature names.
        value: The observed values.
        z: Conditional z-score: the distance of the value from `expected`, in deviations.
        cost: The decrease in energy, in nats, when the value is replaced by `expected`; negative if the
            value is more likely than `expected`.
        expected: The expected value of the feature, given the other features of the event, in the feature's unit.
        low: Lower end of the usual range, two deviations below `expected`.
        high: Upper end; about 95 of 100 ordinary events lie within the range.
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
        """Return the contributions of one event, largest cost first; `top` limits their number."""
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
        """Return the contributions of each event as dictionaries, for JSON; `top` limits their number per event."""
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
