"""Attribution of the mean energy of events: a typical event, and the lines of features that add to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.detectors.explain.explanation import Explanation
from monitor.models.scoring import LoadedModel, to_inputs

F64 = NDArray[np.float64]

MAX_VALUES = 20_000
"""The most values (events times features) that are explained: these take about a tenth of a second."""
_SPREAD = (0.05, 0.5, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The 5%, 50% and 95% quantiles of values."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributedFeature:
    """A feature of the explained events.

    Attributes:
        name: Name of the feature.
        here: Its values in the events; None if none is finite.
        usual: The 5% and 95% quantiles of its training values; None if they are not known.
        expected: Its values as expected given the features of the other lines; None if none is finite.
    """

    name: str
    here: Spread | None
    usual: tuple[float, float] | None
    expected: Spread | None

    @property
    def is_usual_alone(self) -> bool:
        """Return whether nine of ten values are inside of the usual range, or beyond it by at most half its width."""
        if self.here is None or self.usual is None:
            return False
        low, high = self.usual
        margin = (high - low) / 2
        return low - margin <= self.here.low and self.here.high <= high + margin

    @property
    def is_wider(self) -> bool:
        """Return whether the median is inside of the usual range and the values are not: they lie on both sides."""
        if self.here is None or self.usual is None or self.is_usual_alone:
            return False
        return self.usual[0] <= self.here.median <= self.usual[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributionLine:
    """Features of one cause, and their mean contribution; `share` is that of the energy above the typical one."""

    features: tuple[AttributedFeature, ...]
    nats: float
    share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """The mean energy of events: `typical_energy` and the contributions of the lines sum to `mean_energy`, in nats.

    `leading` are the two features of each event that add most, the largest contribution first.
    """

    events: int
    mean_energy: float
    typical_energy: float
    lines: tuple[AttributionLine, ...]
    leading: tuple[tuple[str, ...], ...]


def attribute(model: LoadedModel, events: Sequence[Mapping[str, float | None]]) -> Attribution:
    """Return the attribution of the mean energy of events, the largest contribution first.

    Args:
        model: The model that scored the events.
        events: Features by name, as outliers are stored; at least one event.

    Raises:
        ModelError: The model cannot explain its energies.
    """
    return summarise_explanation(model.detector.explain(to_inputs(model, events)))


def summarise_explanation(explanation: Explanation) -> Attribution:
    """Return the means of an explanation over its events.

    The lines are those of most events: features are on one line if they are on one line in more than half of them.
    """
    contribution = explanation.contribution.mean(axis=0)
    excess = float(contribution.sum())
    lines = [
        AttributionLine(
            features=tuple(_attribute_feature(explanation, j) for j in members),
            nats=float(contribution[members].sum()),
            share=float(contribution[members].sum()) / excess if excess > 0 else None,
        )
        for members in _group_features(explanation.line)
    ]
    return Attribution(
        events=len(explanation),
        mean_energy=explanation.typical_energy + excess,
        typical_energy=explanation.typical_energy,
        lines=tuple(sorted(lines, key=lambda line: -line.nats)),
        leading=tuple(
            tuple(explanation.features[j] for j in row) for row in np.argsort(-explanation.contribution, axis=1)[:, :2]
        ),
    )


def _attribute_feature(explanation: Explanation, j: int) -> AttributedFeature:
    low, high = (float(np.mean(values[:, j])) for values in (explanation.low, explanation.high))
    return AttributedFeature(
        name=explanation.features[j],
        here=_spread(explanation.value[:, j]),
        usual=(low, high) if np.isfinite([low, high]).all() else None,
        expected=_spread(explanation.expected[:, j]),
    )


def _spread(values: F64) -> Spread | None:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, median, high = (float(each) for each in np.quantile(finite, _SPREAD))
    return Spread(low=low, median=median, high=high)


def _group_features(line: NDArray[np.int64]) -> list[list[int]]:
    """Return the groups of features that are on one line in more than half of the events.

    Args:
        line: The number of the line of each feature in each event, (n, D).
    """
    groups: list[list[int]] = []
    for j in range(line.shape[1]):
        together = [group for group in groups if any((line[:, i] == line[:, j]).mean() > 0.5 for i in group)]
        groups = [group for group in groups if group not in together]
        groups.append([*sorted(i for group in together for i in group), j])
    return groups
