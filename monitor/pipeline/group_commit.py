"""Group commits: which buffers are committed together, when the next group may start, and how a group is stored."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from monitor.pipeline.partition_buffer import PartitionBuffer
from monitor.pipeline.retry import StorageRetry
from storage.database.errors import CommitUnknown
from storage.ledger.commit import Commit, CommitOutcome, Fenced, StreamControl
from storage.ledger.ledger import Ledger

log = logging.getLogger(__name__)

MIN_INTERVAL_S = 0.05
"""Shortest time from the start of one group to the start of the next: at most 20 transactions a second and stream."""

MAX_INTERVAL_S = 1.0
"""Longest such time, however slow the database is. It bounds the latency of the history while the database answers."""

_INTERVAL_PER_STREAM_S = 0.01
"""The shortest time grows with the streams of the process: all together send at most 100 transactions a second."""

_INTERVAL_PER_DURATION = 10
"""A group starts after this many durations of the last one, so that commits take at most a tenth of the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitPace:
    """The time on the monotonic clock from which on pending records are committed without a full buffer."""

    next_start_s: float = float("-inf")

    def is_open(self, now_s: float) -> bool:
        """Return whether a group of all pending records may start."""
        return now_s >= self.next_start_s

    @classmethod
    def after(cls, started_s: float, duration_s: float, n_streams: int = 1) -> "CommitPace":
        """Return the pace after a group whose transactions took `duration_s`, in a process of `n_streams` streams."""
        shortest_s = max(MIN_INTERVAL_S, _INTERVAL_PER_STREAM_S * n_streams)
        interval_s = min(max(shortest_s, _INTERVAL_PER_DURATION * duration_s), MAX_INTERVAL_S)
        return cls(next_start_s=started_s + interval_s)


def select_due(
    buffers: Iterable[PartitionBuffer], control: StreamControl, now_s: float, *, is_open: bool
) -> list[PartitionBuffer]:
    """Return the buffers whose steps are due, in the order in which their records have waited.

    Args:
        buffers: The buffers of a stream.
        control: The stream's control state.
        now_s: The time on the monotonic clock.
        is_open: Whether pending records may be committed before their buffer is full.
    """
    due = [
        buffer for buffer in buffers if buffer.is_urgent(control, now_s) or (is_open and buffer.is_due(control, now_s))
    ]
    return sorted(due, key=lambda buffer: buffer.pending_since_s)


def store_group(ledger: Ledger, retry: StorageRetry, commits: Sequence[Commit]) -> list[CommitOutcome]:
    """Store commits of several sources until each has an outcome; return the outcomes in order.

    A commit whose outcome is unknown is looked up by the stored position of its source, and repeated if it is not
    stored. Nobody else can have stored it: its epoch belongs to this process.

    Raises:
        StorageUnavailable: A stop was requested, and the drain timeout has passed.
    """
    outcomes: dict[int, CommitOutcome] = {}
    waiting = list(commits)
    while waiting:
        for commit, outcome in zip(waiting, _send_once(ledger, retry, waiting), strict=True):
            if outcome is not None:
                outcomes[commit.source_id] = outcome
        waiting = [commit for commit in waiting if commit.source_id not in outcomes]
    return [outcomes[commit.source_id] for commit in commits]


def _send_once(ledger: Ledger, retry: StorageRetry, commits: Sequence[Commit]) -> Sequence[CommitOutcome | None]:
    """Send a group once; return the outcomes, None for commits that are not stored and have to be repeated."""
    try:
        return retry.retry_until_answered(lambda: ledger.commit_group(commits), repeatable=False)
    except CommitUnknown as unknown:
        log.warning(
            "%s; comparing the stored positions of %d sources.", unknown, len(commits), extra={"action": "commit"}
        )
    found = retry.retry_until_answered(lambda: ledger.find_outcomes(commits))
    lost = sum(isinstance(outcome, Fenced) for outcome in found)
    log.info(
        "Of %d commits of unknown outcome %d have to be repeated and %d lost their source.",
        len(found),
        found.count(None),
        lost,
        extra={"action": "commit"},
    )
    return found
