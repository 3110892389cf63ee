"""Explanations of energies, as columns, as rows and as lines."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.detectors.explain.derived import FeatureSource

F64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_MAX_FEATURES_OF_A_LINE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureReason:
    """Contribution of one feature to the energy of one event; the fields are those of `Explanation`.

    `alternatives` are the further expected values, if any. `field` and `role` name the field of the event that the
    feature is or is derived from.
    """

    feature: str
    value: float
    z: float
    cost: float
    expected: float
    alternatives: tuple[float, ...]
    low: float
    high: float
    contribution: float
    field: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonLine:
    """Features of one event that have one cause, and the sum of their contributions.

    Attributes:
        reasons: The features, largest contribution in absolute value first.
        contribution: The sum of their contributions, in nats; negative if they make the event likelier.
        share: The same as a share of the energy above the typical energy; NaN if the energy is not above it.
    """

    reasons: tuple[FeatureReason, ...]
    contribution: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Explanation of the energies of n events with D features.

    All arrays are (n, D).

    Attributes:
        features: The feature names.
        value: The observed values.
        contribution: The part of the energy that is due to the feature, in nats, in comparison with a typical event.
            The contributions of an event sum to its energy minus `typical_energy`. A negative one makes the event
            likelier.
        typical_energy: The mean energy of the training events below their 95th percentile, in nats. Where the model
            was not calibrated, of events drawn from the model.
        z: Conditional z-score: the distance of the value from `expected`, in deviations.
        cost: The decrease in energy, in nats, when the value alone is replaced by `expected`; negative if the
            value is more likely than `expected`.
        expected: The expected value of the feature in its unit, given the other features of the event, without
            those that move together with it. Of several components, it is that of the component with the highest
            responsibility given them.
        alternatives: Further expected values, (n, D, 3): of other components with a responsibility above 0.2. NaN
            where there are fewer.
        low: Lower end of the usual range: the 5% quantile of the training values.
        high: Upper end: the 95% quantile.
        line: Features that move together, that are strange as a pair and not alone, or that are derived from one field
            have equal numbers: the smallest index of the features on the line.
        sources: The field of the event that each feature is or is derived from, (D,).
    """

    features: tuple[str, ...]
    value: F64
    contribution: F64
    typical_energy: float
    z: F64
    cost: F64
    expected: F64
    alternatives: F64
    low: F64
    high: F64
    line: Int64
    sources: tuple[FeatureSource, ...]

    def __len__(self) -> int:
        return len(self.z)

    def __iter__(self) -> Iterator[list[FeatureReason]]:
        return (self.reasons(event) for event in range(len(self)))

    def reasons(self, event: int, top: int | None = None) -> list[FeatureReason]:
        """Return the features of one event, largest contribution first; `top` limits their number."""
        order = np.argsort(-self.contribution[event], kind="stable")[:top]
        return [self._reason(event, int(j)) for j in order]

    def lines(self, event: int, top: int | None = None) -> list[ReasonLine]:
        """Return the lines of one event, largest contribution in absolute value first; `top` limits their number.

        The contributions of all lines sum to the energy minus `typical_energy`.
        """
        contribution = self.contribution[event]
        sums = np.bincount(self.line[event], weights=contribution, minlength=len(self.features))
        excess = float(contribution.sum())
        numbers = np.unique(self.line[event])
        result = []
        for number in numbers[np.argsort(-np.abs(sums[numbers]), kind="stable")][:top]:
            members = np.flatnonzero(self.line[event] == number)
            members = members[np.argsort(-np.abs(contribution[members]), kind="stable")]
            total = float(sums[number])
            result.append(
                ReasonLine(
                    reasons=tuple(self._reason(event, int(j)) for j in members),
                    contribution=total,
                    share=total / excess if excess > 0 else float("nan"),
                )
            )
        return result

    def rows(self, top: int | None = None) -> list[list[dict[str, Any]]]:
        """Return the features of each event as dictionaries, for JSON; `top` limits their number per event."""
        return [[asdict(reason) for reason in self.reasons(event, top)] for event in range(len(self))]

    def line_rows(self, top: int | None = None) -> list[list[dict[str, Any]]]:
        """Return the features of each event as dictionaries, for JSON, the features of one line in sequence.

        A dictionary has the fields of `FeatureReason`; `line`, the number of its line from 0; `line_contribution` and
        `line_share`, those of the line; and `line_features`, the number of features on it, of which at most four
        are listed. `top` limits the number of lines per event.
        """
        return [
            [
                asdict(reason)
                | {
                    "line": number,
                    "line_contribution": line.contribution,
                    "line_share": line.share,
                    "line_features": len(line.reasons),
                }
                for number, line in enumerate(self.lines(event, top))
                for reason in line.reasons[:_MAX_FEATURES_OF_A_LINE]
            ]
            for event in range(len(self))
        ]

    def _reason(self, event: int, j: int) -> FeatureReason:
        return FeatureReason(
            feature=self.features[j],
            value=float(self.value[event, j]),
            z=float(self.z[event, j]),
            cost=float(self.cost[event, j]),
            expected=float(self.expected[event, j]),
            alternatives=tuple(each for each in self.alternatives[event, j].tolist() if not np.isnan(each)),
            low=float(self.low[event, j]),
            high=float(self.high[event, j]),
            contribution=float(self.contribution[event, j]),
            field=self.sources[j].field,
            role=self.sources[j].role.value,
        )
