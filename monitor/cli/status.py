"""`outrider status`: where each stream stands, from SQL alone."""

from typing import Any

import click

from config.settings import Settings
from config.units import format_duration, format_time
from monitor.cli.database import open_database
from monitor.cli.output.budget_text import describe_spike_budget
from monitor.cli.output.tables import FORMATS, Row, escape_unprintable, format_age, format_short_time, write_rows
from monitor.cli.settings import load_settings
from monitor.models.warm_up_progress import format_progress
from monitor.thresholds.tick import load_count_model
from storage.database.engine import Database
from storage.database.tables import FOREVER_US
from storage.queries.status import StreamStatus, load_stream_ids, load_stream_status

COLUMNS = (
    "stream",
    "state",
    "running",
    "warm_up_events",
    "warm_up_wanted",
    "warm_up_left_s",
    "lag",
    "last_event_time",
    "last_event_age_s",
    "last_commit",
    "last_commit_age_s",
    "sealed_until",
    "model_version",
    "model_kind",
    "threshold",
    "threshold_lower",
    "threshold_upper",
    "threshold_n",
    "threshold_percentile",
    "threshold_method",
    "promise",
    "drift",
    "open_incidents",
    "dead_letters_last_hour",
    "notifications_pending",
    "notifications_dead",
    "notifications_oldest_age_s",
    "notifications_last_error",
    "incidents",
    "sources",
    "jobs",
)


@click.command(name="status")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", help="How to write it.")
@click.pass_context
def command(ctx: click.Context, form: str) -> None:
    """Show where each stream stands: warming up or running, last event and commit, limit, incidents."""
    settings = load_settings(ctx)
    with open_database(settings) as db:
        rows = _read_rows(db, settings)
    if form == "table":
        click.echo("\n\n".join(_format_stream(row) for row in rows))
    else:
        write_rows(rows, COLUMNS, form)


def _read_rows(db: Database, settings: Settings) -> list[Row]:
    stored = load_stream_ids(db)
    names = list(dict.fromkeys([*settings.streams, *stored]))
    return [
        _build_row(load_stream_status(db, stored[name], lease=f"control:{name}"), settings)
        if name in stored
        else dict.fromkeys(COLUMNS) | _empty_row(name)
        for name in names
    ]


def _empty_row(name: str) -> dict[str, Any]:
    return {
        "stream": name,
        "state": "never run",
        "running": False,
        "open_incidents": 0,
        "dead_letters_last_hour": 0,
        "notifications_pending": 0,
        "notifications_dead": 0,
        "incidents": [],
        "sources": [],
        "jobs": [],
    }


def _build_row(standing: StreamStatus, settings: Settings) -> dict[str, Any]:
    model, limit = standing.model, standing.threshold
    warm_up = _warm_up_progress(standing, settings)
    return {
        "stream": standing.name,
        "state": _stream_state(standing),
        "running": standing.is_lease_held,
        "warm_up_events": None if warm_up is None else warm_up[0],
        "warm_up_wanted": None if warm_up is None else warm_up[1],
        "warm_up_left_s": None if warm_up is None or not standing.is_lease_held else warm_up[2],
        "lag": 0 if _at_end(standing) else None,
        "last_event_time": _format_optional_time(standing.last_event_us),
        "last_event_age_s": _age_s(standing, standing.last_event_us),
        "last_commit": _format_optional_time(standing.last_commit_us),
        "last_commit_age_s": _age_s(standing, standing.last_commit_us),
        "sealed_until": _format_optional_time(standing.sealed_until_us),
        "model_version": None if model is None else model.version,
        "model_kind": None if model is None else model.kind,
        "threshold": None if limit is None else limit.threshold,
        "threshold_lower": None if limit is None else limit.lower,
        "threshold_upper": None if limit is None else limit.upper,
        "threshold_n": None if limit is None else limit.n,
        "threshold_percentile": None if limit is None else limit.percentile,
        "threshold_method": None if limit is None else limit.method,
        "promise": _spike_budget(standing, settings),
        "drift": _drift_state(standing, settings),
        "open_incidents": len(standing.open_incidents),
        "dead_letters_last_hour": standing.dead_letters_last_hour,
        "notifications_pending": standing.notification_counts.get("pending", 0),
        "notifications_dead": standing.notification_counts.get("dead", 0),
        "notifications_oldest_age_s": _age_s(standing, standing.oldest_pending_us),
        "notifications_last_error": standing.last_notification_error,
        "incidents": [
            {
                "id": each.id,
                "kind": each.kind,
                "severity": each.severity,
                "opened_at": format_time(each.opened_at_us),
                "summary": each.summary,
            }
            for each in standing.open_incidents
        ],
        "sources": [
            {
                "topic": each.topic,
                "partition": each.partition,
                "incarnation": each.incarnation,
                "next_offset": each.next_offset,
                "last_event_time": _format_optional_time(each.last_event_us),
                "last_commit": _format_optional_time(each.committed_at_us),
                "at_end": each.idle_until_us > standing.now_us,
            }
            for each in standing.sources
        ],
        "jobs": [
            {
                "name": each.name,
                "last_success_age_s": _age_s(standing, each.succeeded_at_us),
                "last_failure_age_s": _age_s(standing, each.failed_at_us),
                "last_error": each.last_error,
            }
            for each in standing.jobs
        ],
    }


def _stream_state(standing: StreamStatus) -> str:
    if standing.model is None:
        return "warming up" if standing.is_lease_held else "warming up, stopped"
    if standing.sources and all(each.idle_until_us == FOREVER_US for each in standing.sources):
        return "ended"
    return "running" if standing.is_lease_held else "stopped"


def _warm_up_progress(standing: StreamStatus, settings: Settings) -> tuple[int, int, float | None] | None:
    """Return how many events of how many are there, and how long the rest may take; None when there is a model."""
    if standing.model is not None:
        return None
    told = standing.details.get("warm_up", {})
    own = settings.streams.get(standing.name)
    wanted = int(told.get("wanted", own.model.warm_up if own else 0))
    left_s = told.get("left_s")
    return min(int(told.get("events", 0)), wanted), wanted, None if left_s is None else float(left_s)


def _at_end(standing: StreamStatus) -> bool:
    """Return whether the owner has just seen every log's end behind its position; only then is the lag known."""
    return bool(standing.sources) and all(each.idle_until_us > standing.now_us for each in standing.sources)


def _spike_budget(standing: StreamStatus, settings: Settings) -> str | None:
    own = settings.streams.get(standing.name)
    if own is None or standing.threshold is None or standing.events_per_window is None:
        return None
    return describe_spike_budget(load_count_model(standing.threshold.details), standing.events_per_window, own)


def _drift_state(standing: StreamStatus, settings: Settings) -> dict[str, str] | None:
    """Return by horizon whether drift is watched over it, and if not, why."""
    own = settings.streams.get(standing.name)
    if own is None or not standing.drift_state:
        return None
    waiting = standing.drift_state.get("waiting", {})
    lengths = [format_duration(each) for each in own.alerts.drift.horizons if each >= own.window.size]
    return {length: waiting.get(length, "watched") for length in lengths}


def _format_optional_time(time_us: int | None) -> str | None:
    return None if time_us is None else format_time(time_us)


def _age_s(standing: StreamStatus, time_us: int | None) -> float | None:
    return None if time_us is None else (standing.now_us - time_us) / 1e6


def _format_stream(row: Row) -> str:
    """Return one stream as a few lines, the state first."""
    state = row["state"]
    if row["warm_up_wanted"] is not None:
        tail = "" if row["running"] else " (stopped)"
        state = f"{format_progress(row['warm_up_events'], row['warm_up_wanted'], row['warm_up_left_s'])}{tail}"
    lines = [f"{row['stream']}: {state}"]
    if row["sources"]:
        lines += [_events_line(row), _lag_line(row)]
    if row["threshold"] is not None:
        lines.append(_threshold_line(row))
    if row["promise"] is not None:
        lines.append(f"  spike          {row['promise']}")
    if row["drift"] is not None:
        lines.append(f"  drift          {'; '.join(f'{length}: {said}' for length, said in row['drift'].items())}")
    if state != "never run":
        lines += _problem_lines(row)
    return "\n".join(lines)


def _events_line(row: Row) -> str:
    if row["last_event_time"] is None:
        return "  events         none stored yet"
    return (
        f"  events         last of {format_short_time(row['last_event_time'])} ({format_age(row['last_event_age_s'])}), "
        f"last commit {format_age(row['last_commit_age_s'])}"
    )


def _lag_line(row: Row) -> str:
    places = ", ".join(
        f"{escape_unprintable(each['topic'])}[{each['partition']}] {each['next_offset']:,}"
        for each in row["sources"][:4]
    )
    more = f" and {len(row['sources']) - 4} more" if len(row["sources"]) > 4 else ""
    known = "none, at the end" if row["lag"] == 0 else f"see `outrider offsets {row['stream']}`"
    return f"  lag            {known}; next offset of {places}{more}"


def _threshold_line(row: Row) -> str:
    return (
        f"  threshold      {row['threshold']:.5g} ({row['threshold_lower']:.5g} to {row['threshold_upper']:.5g}), "
        f"the {row['threshold_percentile']:g} percentile by {row['threshold_method']} of {row['threshold_n']:,} "
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
    lines.append(_notifications_line(row))
    if row["notifications_last_error"] is not None:
        lines.append(f"    {escape_unprintable(row['notifications_last_error'])}")
    return lines + _job_lines(row)


def _notifications_line(row: Row) -> str:
    oldest = row["notifications_oldest_age_s"]
    since = "" if oldest is None else f" (the oldest stored {format_age(oldest)})"
    return (
        f"  notifications  {row['notifications_pending']:,} to be told{since}, {row['notifications_dead']:,} given up"
    )


def _job_lines(row: Row) -> list[str]:
    """Return the ages of the jobs' last successes, and a line for each job whose latest run failed."""
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
    return [f"  jobs           last done: {ages}", *failed]
