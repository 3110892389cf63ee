"""The partitions with records that do not move, and the reason of each. Pure functions."""

from collections.abc import Iterable
from dataclasses import dataclass

from config.time_format import format_utc
from consumers.batch import Partition
from monitor.pipeline.partition_buffer import HeldByLead, PartitionBuffer, Undecided

HELD_AFTER_S = 10.0
"""Records that wait for less than this are in the ordinary course of commits and seals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingPartition:
    """A partition whose position has not moved since `since_s` on the monotonic clock although it has records."""

    partition: Partition
    since_s: float
    reason: str


def find_waiting(buffers: Iterable[PartitionBuffer], now_s: float) -> tuple[WaitingPartition, ...]:
    """Return the partitions that have waited for at least `HELD_AFTER_S`, by partition."""
    found = [
        WaitingPartition(partition=buffer.partition, since_s=buffer.waiting_since_s, reason=_describe_reason(buffer))
        for buffer in buffers
        if buffer.pending and now_s - buffer.waiting_since_s >= HELD_AFTER_S
    ]
    return tuple(sorted(found, key=lambda each: each.partition))


def _describe_reason(buffer: PartitionBuffer) -> str:
    at = "" if buffer.watermark_us is None else f" of {format_utc(buffer.watermark_us)}"
    match buffer.last_hold:
        case HeldByLead():
            return f"lead: its next event time{at} is ahead of the other partitions by more than window.ahead"
        case Undecided():
            return (
                f"undecided time: the time of its next event is beyond the watermark{at} by more than "
                "window.max_future; further record batches or the clock decide"
            )
        case None:
            return "store: its records wait for a commit in the database"
