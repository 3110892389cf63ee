"""Counts of one stream in this process, since its start. The worker thread writes them, the scrape reads them."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from storage.ledger.commit import Commit

DELIVERY_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Upper bounds of the buckets of delivery times, in seconds."""

STAGE_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the buckets of the durations of stages, in seconds."""

STAGES = ("poll", "decode", "score", "judge", "commit")


class BucketCounts:
    """A histogram with fixed upper bounds; the last bucket has none.

    One thread adds, others read: a reader may see an observation in the sum that the buckets do not have yet.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._names = [*(f"{bound:g}" for bound in bounds), "+Inf"]
        self._edges = np.array(bounds)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def add_all(self, values: NDArray[np.float64]) -> None:
        """Count observations, (n,)."""
        buckets = np.searchsorted(self._edges, values, side="left")
        self._counts += np.bincount(buckets, minlength=len(self._counts))
        self.sum += float(values.sum())

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the upper bound of each bucket as text, and the number of observations up to it."""
        return list(zip(self._names, np.cumsum(self._counts).astype(float).tolist(), strict=True))


class StreamCounters:
    """The counts of one stream; they outlive a restart of the stream in its process."""

    def __init__(self) -> None:
        self.events = 0
        self.late = 0
        self.outliers = 0
        self.filtered = 0
        self.gap_offsets = 0
        self.dead_letters: Counter[str] = Counter()
        self.stored_rows: Counter[str] = Counter()
        self.delivery = BucketCounts(DELIVERY_BOUNDS_S)
        self.stages = {stage: BucketCounts(STAGE_BOUNDS_S) for stage in STAGES}

    def count_commits(self, commits: Iterable[Commit]) -> None:
        """Count stored commits."""
        for commit in commits:
            n_events, n_outliers = len(commit.scores), len(commit.outliers)
            self.events += n_events
            self.outliers += n_outliers
            self.late += 0 if commit.scores.late is None else int(commit.scores.late.sum())
            self.filtered += sum(part.filtered for part in commit.parts)
            self.dead_letters.update(commit.dead.reasons)
            if commit.gap_reason is not None:
                self.gap_offsets += commit.end - commit.begin
            self.stored_rows.update(scores=n_events, outliers=n_outliers, dead_letters=len(commit.dead))
