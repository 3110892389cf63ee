"""The status of a stream as lines of text."""

import re
from collections.abc import Mapping

from config.time_format import format_age, format_short_time
from monitor.cli.output.table_layout import wrap_line
from monitor.cli.output.tables import Row, escape_unprintable
from monitor.models.warm_up_progress import format_progress, format_rejection
from storage.control.warm_up import RejectedRecords, WarmUpProgress
from storage.queries.health import WELL_STATES

_VALUE_INDENT = " " * 17
_LABEL = re.compile(r"  \S.{13} \S")
"""The beginning of a line with a label: 2 blanks, 15 characters, the value."""


def format_stream(row: Row) -> str:
    """Return the status of one stream as lines of text, the state first."""
    state = row["state"]
    rejected: list[str] = []
    if row["warm_up_wanted"] is not None and row["health"] in {*WELL_STATES, "not_running", "never_run"}:
        progress = _progress_of_row(row)
        tail = "" if row["running"] else " (stopped)"
        state = f"{escape_unprintable(format_progress(progress))}{tail}"
        rejected = [f"  rejected       {escape_unprintable(format_rejection(each))}" for each in progress.rejections]
    lines = [f"{row['stream']}: {state}", *_health_lines(row), *rejected]
    lines += _proof_lines(row)
    if row["sources"]:
        lines += [_events_line(row), _lag_line(row)]
    if row["threshold"] is not None:
        lines.append(_threshold_line(row))
    if row["derived"]:
        lines.append(f"  derived        change and roughness of {escape_unprintable(', '.join(row['derived']))}")
    if row["promise"] is not None:
        lines.append(f"  spike          {row['promise']}")
    if row["season"] is not None:
        lines.append(f"  season         {row['season']}")
    lines += _habitual_lines(row)
    if row["drift"] is not None:
        lines.append(f"  drift          {'; '.join(f'{length}: {state}' for length, state in row['drift'].items())}")
    lines += [f"  pending        {each}" for each in row["pending"]]
    lines += [f"  never          {each}" for each in row["never_reached"]]
    if row["refit"] is not None:
        lines.append(f"  refit          {_describe_refit(row['refit'])}")
    if state != "never run":
        lines += _problem_lines(row)
    return "\n".join(lines)


def _health_lines(row: Row) -> list[str]:
    """Return the reason of a state that is not well, and the parts with a problem."""
    lines = []
    if row["health_reason"]:
        lines.append(f"  reason         {_since(row['health_since'])}{escape_unprintable(row['health_reason'])}")
    lines += [
        f"  {each['component']:<14} {each['state']} {_since(each['since'])}{escape_unprintable(each['reason'] or '')}"
        for each in row["problems"]
    ]
    lines += [
        f"  held           {escape_unprintable(each['partition'])} {_since(each['since'])}"
        f"{escape_unprintable(each['reason'] or '')}"
        for each in row["held"]
    ]
    return lines


def wrap_status(text: str, width: int) -> str:
    """Wrap the lines of a status between words; the values stay in their column."""
    lines = []
    for line in text.splitlines():
        indent = _VALUE_INDENT if _LABEL.match(line) else " " * (len(line) - len(line.lstrip()) + 2)
        lines += wrap_line(line, width, indent)
    return "\n".join(lines)


def _proof_lines(row: Row) -> list[str]:
    """Return how old the proofs of the state are."""
    proof = row["proof"]
    if not proof or proof["report_age_s"] is None:
        return []
    lease = proof["lease_holder"]
    renewed = "nobody holds the lease" if lease is None else f"lease renewed {format_age(proof['lease_renewed_age_s'])}"
    return [f"  proof          reported {format_age(proof['report_age_s'])}, {renewed}"]


def _describe_refit(refit: Mapping[str, str | None]) -> str:
    """Return the last refit and the next one as text."""
    following = f"next due {format_short_time(refit['next_due'])}" if refit["next_due"] else "none is due"
    if refit["due"] is None:
        return following
    reason = f": {escape_unprintable(refit['reason'])}" if refit["reason"] else ""
    if refit["state"] == "shadow" and refit["gate"]:
        reason = f": decided at {format_short_time(refit['gate'])}"
    return f"{format_short_time(refit['due'])} {refit['state']}{reason}; {following}"


def _since(time: str | None) -> str:
    return "" if time is None else f"since {format_short_time(time)}: "


def _progress_of_row(row: Row) -> WarmUpProgress:
    return WarmUpProgress(
        events=row["warm_up_events"],
        wanted=row["warm_up_wanted"],
        left_s=row["warm_up_left_s"],
        records=row["warm_up_records"],
        rejected=row["warm_up_rejected"],
        rejections=tuple(RejectedRecords(**each) for each in row["warm_up_rejections"]),
        caught_up=row["warm_up_caught_up"],
        events_per_s=row["warm_up_events_per_s"],
        fits_early_in_s=row["warm_up_fits_early_in_s"],
    )


def _events_line(row: Row) -> str:
    if row["last_event_time"] is None:
        return "  events         none stored yet"
    return (
        f"  events         last at {format_short_time(row['last_event_time'])} "
        f"({format_age(row['last_event_age_s'])}), last commit {format_age(row['last_commit_age_s'])}"
    )


def _lag_line(row: Row) -> str:
    offsets = ", ".join(
        f"{escape_unprintable(each['topic'])}[{each['partition']}] {each['next_offset']:,}"
        for each in row["sources"][:4]
    )
    more = f" and {len(row['sources']) - 4} more" if len(row["sources"]) > 4 else ""
    known = row["proof"].get("lag_events")
    behind = f"see `outrider offsets {row['stream']}`" if known is None else f"{known:,} events"
    lag = "none, at the end" if row["lag"] == 0 else behind
    return f"  lag            {lag}; next offset of {offsets}{more}"


def _habitual_lines(row: Row) -> list[str]:
    keys = row["habitual_keys"]
    if not keys:
        return []
    named = ", ".join(
        f"{escape_unprintable(each['key'])} ({each['rate']:.0%} outliers, {_describe_end(each)})" for each in keys[:3]
    )
    more = f" and {len(keys) - 3:,} more" if len(keys) > 3 else ""
    return [f"  habitual keys  {named}{more}"]


def _describe_end(habit: Row) -> str:
    if habit["accepted_by"] is not None:
        return f"accepted by {escape_unprintable(habit['accepted_by'])}"
    return f"until {habit['until'][:10]}"


def _threshold_line(row: Row) -> str:
    return (
        f"  threshold      {row['threshold']:.5g} ({row['threshold_lower']:.5g} to {row['threshold_upper']:.5g}), "
        f"the {row['threshold_percentile']:g} percentile (method {row['threshold_method']}) of {row['threshold_n']:,} "
        f"energies, model {row['model_version']} ({row['model_kind']})"
    )


def _problem_lines(row: Row) -> list[str]:
    lines = [f"  incidents      {row['open_incidents']} open"]
    lines += [
        f"    #{each['id']} {each['kind']}, {each['severity']}, since {format_short_time(each['opened_at'])}: "
        f"{escape_unprintable(each['summary'])}"
        for each in row["incidents"]
    ]
    lines.append(f"  dead letters   {row['dead_letters_last_hour']:,} in the last hour")
    if row["late_share_last_hour"]:
        lines.append(f"  late           {row['late_share_last_hour']:.1%} of the events of the last hour")
    lines.append(_notifications_line(row))
    if row["notifications_last_error"] is not None:
        lines.append(f"    {escape_unprintable(row['notifications_last_error'])}")
    return lines + _replica_lines(row) + _job_lines(row)


def _replica_lines(row: Row) -> list[str]:
    """Return a line for each process with a file that differs from the stored settings, which it follows."""
    return [
        f"  settings       process {escape_unprintable(each['owner'])} follows the stored settings; those of its file "
        "differ"
        for each in row["replicas"]
        if each["has_other_settings"]
    ]


def _notifications_line(row: Row) -> str:
    oldest = row["notifications_oldest_age_s"]
    since = "" if oldest is None else f" (the oldest stored {format_age(oldest)})"
    return f"  notifications  {row['notifications_pending']:,} pending{since}, {row['notifications_dead']:,} given up"


def _job_lines(row: Row) -> list[str]:
    """Return the ages of the jobs' last successes, and a line for each job with a failed last run."""
    if not row["jobs"]:
        return []
    ages = ", ".join(
        f"{each['name']} {'never' if each['last_success_age_s'] is None else format_age(each['last_success_age_s'])}"
        for each in row["jobs"]
    )
    failed = [
        f"    {each['name']} failed {format_age(each['last_failure_age_s'])}: {escape_unprintable(each['last_error'])}"
        for each in row["jobs"]
        if each["last_error"] is not None
    ]
    return [f"  jobs           last success: {ages}", *failed]
