"""Findings about records without events: a high share of dead letters, and gaps in the log. Pure functions."""

from config.stream_rules import StreamRules
from config.time_format import format_utc
from monitor.incidents.lifecycle import Finding, Kind, Severity
from monitor.incidents.share_limit import exceeds_limit
from monitor.incidents.window import window_details
from monitor.statistics.part import Part
from storage.control.records import WindowFacts


def find_dead_letters(facts: WindowFacts, part: Part, rules: StreamRules) -> Finding | None:
    """Return the finding of a window with too large a share of dead letters, otherwise None."""
    records = part.events + part.dead
    if part.dead < rules.min_outliers or not exceeds_limit(part.dead, records, rules.max_dead_letter_ratio):
        return None
    share = part.dead / records
    summary = (
        f"{part.dead:,} of {records:,} records could not be decoded around {format_utc(facts.window_start_us)} "
        f"({share:.1%}, more than {rules.max_dead_letter_ratio:.1%}); the view dead_letter_history has the reasons"
    )
    details = {
        "window": window_details(facts),
        "dead_letters": part.dead,
        "records": records,
        "share": share,
        "limit": rules.max_dead_letter_ratio,
        "config_hash": rules.config_hash,
    }
    severity = Severity.CRITICAL if share > 0.5 else Severity.WARNING
    return Finding(kind=Kind.DEAD_LETTERS, severity=severity, summary=summary, details=details)


def find_gaps(facts: WindowFacts) -> Finding | None:
    """Return the finding of offset ranges that could not be read since the last judged window, or None."""
    if not facts.gaps:
        return None
    ranges = [
        {
            "topic": gap.topic,
            "partition": gap.partition,
            "from_offset": gap.from_offset,
            "to_offset": gap.to_offset,
            "reason": gap.reason,
        }
        for gap in facts.gaps
    ]
    missed = sum(gap.to_offset - gap.from_offset for gap in facts.gaps)
    first = facts.gaps[0]
    summary = (
        f"{missed:,} offsets could not be read, the first range {first.from_offset:,} to {first.to_offset:,} of "
        f"{first.topic}[{first.partition}] ({first.reason}); their events are in no score and no window"
    )
    if not missed:
        summary = (
            f"the log of {first.topic}[{first.partition}] was replaced before it was read to its end: its records from "
            f"offset {first.from_offset:,} on, if there were any, are in no score and no window"
        )
    details = {"window": window_details(facts), "ranges": ranges, "offsets": missed}
    return Finding(kind=Kind.GAP, severity=Severity.CRITICAL, summary=summary, details=details)
