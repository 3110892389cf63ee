"""The values of the features before and in a drifted horizon, from samples of their windows. Pure functions.

The drift statistics are moments of ranks among the training values: they decide, but tell the values only as far as a
beta distribution fits the ranks, and nothing beyond the training values. The samples tell them with the error of a
sample: with m events, a quantile is off by at most 1.96 sqrt(p (1 - p) / m) in rank, 95% of the time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monitor.statistics.drift_summary import ValueSummary
from monitor.statistics.event_sample import decode_sample
from monitor.statistics.feature_histograms import (
    Distribution,
    compare,
    decode_quantiles,
    from_quantiles,
    from_sample,
    mean_of,
    quantiles_of,
)
from storage.control.drift_cells import FeatureSummaryRow
from storage.control.samples import StoredSample

MIN_SAMPLED = 50
"""Number of sampled events from which their quantiles are told: the error of a median is below 14% in rank."""

_MIN_COMPLETE = 10
"""Number of events from which their quantiles are told where the samples hold all events: they have no error."""

_DIGITS = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DriftValues:
    """The distributions of the features before and in a horizon; None: too few sampled events."""

    names: tuple[str, ...]
    before: Distribution | None
    after: Distribution | None

    def summarise(self, feature: str) -> tuple[ValueSummary, ValueSummary] | None:
        """Return the values of a feature before and in the horizon; None unless both are known."""
        if self.before is None or self.after is None or feature not in self.names:
            return None
        column = self.names.index(feature)
        return _summarise(self.before, column), _summarise(self.after, column)

    def histogram(self, feature: str) -> dict[str, Any] | None:
        """Return the shares of 24 bins before and in the horizon as a JSON object; None unless both are known."""
        if self.before is None or self.after is None or feature not in self.names:
            return None
        found = compare(self.names, training=None, before=self.before, after=self.after, only=feature)[0]
        assert found.before is not None
        assert found.after is not None
        return {
            "low": found.edges[0],
            "high": found.edges[-1],
            "before": [round(share, _DIGITS) for share in found.before.shares],
            "after": [round(share, _DIGITS) for share in found.after.shares],
            "sampled": [found.before.sampled, found.after.sampled],
        }


def distribution_of(samples: Sequence[StoredSample], n_features: int) -> Distribution | None:
    """Return the distribution of the sampled events, None without any.

    Each event stands for the events of its window that were not sampled.
    """
    pairs = [(sample.events, decode_sample(sample.payload)) for sample in samples]
    pairs = [(events, sample) for events, sample in pairs if len(sample)]
    if not pairs:
        return None
    # Behind the fields follows the history of their keys, if the stream derives features.
    fields = np.concatenate([sample.features[:, :n_features] for _, sample in pairs])
    weights = np.repeat([events / len(sample) for events, sample in pairs], [len(sample) for _, sample in pairs])
    return from_sample(fields, weights)


def distribution_of_summary(summary: FeatureSummaryRow | None) -> Distribution | None:
    """Return the distribution with stored quantiles."""
    return None if summary is None else from_quantiles(decode_quantiles(summary.payload), summary.sampled)


def is_sufficient(distribution: Distribution | None) -> bool:
    """Return whether a distribution has enough sampled events to be told."""
    if distribution is None:
        return False
    needed = _MIN_COMPLETE if distribution.complete else MIN_SAMPLED
    return (distribution.effective or distribution.sampled) >= needed


def _summarise(side: Distribution, column: int) -> ValueSummary:
    low, _, median, _, high = quantiles_of(side, column)
    return ValueSummary(mean=mean_of(side, column), median=median, low=low, high=high, exceeded=())
