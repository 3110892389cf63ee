"""`outrider incidents`: list the incidents, show why one opened, or apply a verb to one."""

import json
from collections.abc import Iterable
from typing import Any

import click

from config.errors import ConfigError
from config.time_format import format_optional_time, format_time
from monitor.cli.command_group import DefaultVerbGroup
from monitor.cli.database import format_latest_incidents, format_no_history, has_history, open_database, open_history
from monitor.cli.output.incident_text import format_incident
from monitor.cli.output.tables import Row, format_option, iterate_rows, write_rows
from monitor.cli.settings import load_settings
from monitor.cli.verbs import run_verb, verb_options
from storage.queries.history_views import INCIDENTS
from storage.queries.incident_report import IncidentReport, load_incident_report

_TABLE_COLUMNS = ("id", "stream", "kind", "severity", "status", "opened_at", "summary")


@click.group(name="incidents", cls=DefaultVerbGroup)
def command() -> None:
    """List incidents, show why one opened, or act on one."""


@command.command(name="list")
@click.option("--open", "only_open", is_flag=True, help="List only unresolved incidents.")
@click.option("--stream", help="List only incidents of this stream.")
@format_option
@click.pass_context
def list_incidents(ctx: click.Context, only_open: bool, stream: str | None, form: str) -> None:
    """List the incidents in order of opening."""
    settings = load_settings(ctx)
    with open_history(settings) as history:
        rows: Iterable[Row] = ()
        if stream is None or has_history(settings, history.streams(), stream):
            rows = iterate_rows(history.incidents(stream))
        else:
            click.echo(format_no_history(stream), err=True)
        chosen = (row for row in rows if not only_open or row["status"] == "open")
        columns = list(INCIDENTS.columns)
        nothing = "No open incidents." if only_open else "No incidents."
        write_rows(chosen, columns, form, shown=_TABLE_COLUMNS, nothing=nothing)


@command.command(name="show")
@click.argument("incident", type=int)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Output format.")
@click.pass_context
def show(ctx: click.Context, incident: int, form: str) -> None:
    """Show why INCIDENT opened: an explanation, then the numbers behind it."""
    settings = load_settings(ctx)
    with open_database(settings) as db:
        report = load_incident_report(db, incident)
    if report is None:
        raise ConfigError(f"there is no incident {incident}; {format_latest_incidents(settings)}")
    click.echo(
        json.dumps(_incident_as_dict(report), ensure_ascii=False, indent=2)
        if form == "json"
        else format_incident(report)
    )


@command.command(name="acknowledge")
@verb_options
@click.pass_context
def acknowledge(ctx: click.Context, /, incident: int, **options: Any) -> None:
    """Take care of INCIDENT: its messages are not repeated for 24 h unless it becomes more severe."""
    run_verb(ctx, "acknowledge", incident, **options)


@command.command(name="accept")
@verb_options
@click.pass_context
def accept(ctx: click.Context, /, incident: int, **options: Any) -> None:
    """Accept INCIDENT as normal: resolve it, and treat its windows as normal from now on."""
    run_verb(ctx, "accept", incident, **options)


@command.command(name="false-alarm")
@verb_options
@click.pass_context
def false_alarm(ctx: click.Context, /, incident: int, **options: Any) -> None:
    """Mark INCIDENT as a false alarm: resolve it, and let its windows count in the calibration again."""
    run_verb(ctx, "false_alarm", incident, **options)


@command.command(name="confirm")
@verb_options
@click.pass_context
def confirm(ctx: click.Context, /, incident: int, **options: Any) -> None:
    """Confirm INCIDENT as a true alarm: its windows stay out of the calibration."""
    run_verb(ctx, "confirm", incident, **options)


@command.command(name="resolve")
@verb_options
@click.pass_context
def resolve(ctx: click.Context, /, incident: int, **options: Any) -> None:
    """Resolve INCIDENT without a verdict."""
    run_verb(ctx, "resolve", incident, **options)


@command.command(name="reopen")
@verb_options
@click.pass_context
def reopen(ctx: click.Context, /, incident: int, **options: Any) -> None:
    """Open INCIDENT again and withdraw its verdict."""
    run_verb(ctx, "reopen", incident, **options)


def _incident_as_dict(report: IncidentReport) -> dict[str, Any]:
    return {
        "id": report.id,
        "stream": report.stream,
        "kind": report.kind,
        "severity": report.severity,
        "status": report.status,
        "window_start": format_time(report.window_start_us),
        "opened_at": format_time(report.opened_at_us),
        "resolved_at": format_optional_time(report.resolved_at_us),
        "windows_fired": report.windows_fired,
        "summary": report.summary,
        "details": report.details,
        "verdict": report.verdict,
        "acknowledged_by": report.acknowledged_by,
        "acknowledged_at": format_optional_time(report.acknowledged_at_us),
        "transitions": [
            {
                "transition": step.transition,
                "at": format_time(step.at_us),
                "summary": step.summary,
                "notifications": step.notification_states,
            }
            for step in report.transitions
        ],
        "verbs": [
            {
                "verb": verb.verb,
                "who": verb.who,
                "note": verb.note,
                "at": format_time(verb.recorded_at_us),
                "effects": verb.effects,
            }
            for verb in report.verbs
        ],
        "strangest_events": [
            {
                "topic": event.topic,
                "partition": event.partition,
                "source_offset": event.source_offset,
                "event_time": format_time(event.event_time_us),
                "key": event.key,
                "event_id": event.event_id,
                "energy": event.energy,
                "features": event.features,
                "training_means": event.training_means,
            }
            for event in report.top_outliers
        ],
    }
