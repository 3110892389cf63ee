"""Training events with the names of their features, and the number of events that a fit needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumers.batch import Floats, Int64
from consumers.discovery.rejections import RejectionGroup
from monitor.models.training_history import TrainingHistory


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """Training events in order of event time.

    Attributes:
        features: The features, (n, D).
        names: The D feature names.
        rejected: The number of records rejected by the codec.
        exhausted: True if the input contains no further events.
        labels: The label field of each event, if one was requested.
        rejections: The rejected records by reason and field, the largest group first.
        history: The history of the events, row by row, if features are derived from it.
        partition_times_us: The event times of each partition, in the order of offsets.
        weights: The number of events that each one stands for, (n,); None if each stands for itself.
    """

    features: Floats
    names: tuple[str, ...]
    rejected: int
    exhausted: bool
    labels: tuple[str | None, ...] | None = None
    rejections: tuple[RejectionGroup, ...] = ()
    history: TrainingHistory | None = None
    partition_times_us: tuple[Int64, ...] = ()
    weights: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.features)


def min_training_events(n_features: int) -> int:
    """Return the minimum number of events for a fit: enough for a covariance and for a meaningful threshold."""
    return max(50, 5 * n_features)


def describe_features(names: Sequence[str]) -> str:
    """Return the number of features as text."""
    return f"{len(names)} feature{'' if len(names) == 1 else 's'}"
