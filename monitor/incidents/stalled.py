"""The incident of kind `stalled`: a partition has records and does not move. Pure functions.

It follows the wall clock, as `silence` and `stopped` do, and resolves when every partition moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from config.stream_rules import StreamRules
from config.time_format import SECOND_US, format_rough_duration
from monitor.incidents.lifecycle import Finding, Interval, Kind, Severity, is_repeat_due
from monitor.incidents.rows import update_incident
from storage.control.records import Incident


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPartition:
    """A partition with records whose position has not moved since a time on the database's clock."""

    partition: str
    since_us: int
    reason: str


def find_stalled(held: Sequence[HeldPartition], rules: StreamRules, now_us: int) -> Finding | None:
    """Return the finding of the partitions that have not moved for `alerts.stalled_after`, otherwise None."""
    stalled = [each for each in held if now_us - each.since_us >= rules.stalled_after_us]
    if not stalled:
        return None
    first = min(stalled, key=lambda each: each.since_us)
    waited = format_rough_duration((now_us - first.since_us) / SECOND_US)
    others = f" (and {len(stalled) - 1:,} more)" if len(stalled) > 1 else ""
    details = {
        "stalled_after_s": rules.stalled_after_us / SECOND_US,
        "partitions": [
            {
                "partition": each.partition,
                "waited_s": (now_us - each.since_us) / SECOND_US,
                "reason": each.reason,
            }
            for each in stalled
        ],
    }
    summary = f"the partition {first.partition}{others} has records and has not moved for {waited}: {first.reason}"
    return Finding(kind=Kind.STALLED, severity=Severity.CRITICAL, summary=summary, details=details)


def update_stalled_incident(
    held: Sequence[HeldPartition], open_incidents: Sequence[Incident], rules: StreamRules, *, now_us: int
) -> list[Incident]:
    """Return the rows that open, repeat or resolve the stream's incident of kind `stalled`; empty without a change."""
    finding = find_stalled(held, rules, now_us)
    stored = next((incident for incident in open_incidents if incident.kind == Kind.STALLED), None)
    if finding is None and stored is None:
        return []
    if finding is not None and stored is not None and not is_repeat_due(stored, now_us, rules.repeat_interval_us):
        return []
    moment = Interval(start_us=now_us, end_us=now_us)
    if finding is not None and stored is None:
        moment = Interval(start_us=min(each.since_us for each in held), end_us=now_us)
    return update_incident(Kind.STALLED, finding, open_incidents, moment, rules, now_us=now_us, resolve_after=1)
