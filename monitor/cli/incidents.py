"""`outrider incidents`: the incidents, and why one fired."""

import json
from collections.abc import Iterable
from typing import Any

import click

from config.errors import ConfigError
from config.units import format_time
from monitor.cli.nouns import Noun
from monitor.cli.settings import settings_of
from monitor.cli.stored import database_of, history_of, is_stored, latest_incidents, not_yet
from monitor.cli.story import story_of
from monitor.cli.tables import Row, format_of, format_option, rows_of, write
from storage.dossier import Dossier, dossier_of
from storage.listings import INCIDENTS

_SHOWN = ("id", "stream", "kind", "severity", "status", "opened_at", "summary")


@click.group(name="incidents", cls=Noun)
def command() -> None:
    """List incidents, or show why one fired."""


@command.command(name="list")
@click.option("--open", "only_open", is_flag=True, help="Only those that are not resolved.")
@click.option("--stream", help="Only those of one stream.")
@format_option
@click.pass_context
def list_incidents(ctx: click.Context, only_open: bool, stream: str | None, form: str | None) -> None:
    """List the incidents in the order in which they opened."""
    settings = settings_of(ctx)
    with history_of(settings) as history:
        rows: Iterable[Row] = ()
        if stream is None or is_stored(settings, history.streams(), stream):
            rows = rows_of(history.incidents(stream))
        else:
            click.echo(not_yet(stream), err=True)
        chosen = (row for row in rows if not only_open or row["status"] == "open")
        columns = list(INCIDENTS.columns)
        nothing = "No open incidents." if only_open else "No incidents."
        write(chosen, columns, format_of(form), shown=_SHOWN, nothing=nothing)


@command.command(name="show")
@click.argument("incident", type=int)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to write it.")
@click.pass_context
def show(ctx: click.Context, incident: int, form: str) -> None:
    """Say why INCIDENT fired: in words, then with the numbers that led to it."""
    settings = settings_of(ctx)
    with database_of(settings) as db:
        dossier = dossier_of(db, incident)
    if dossier is None:
        raise ConfigError(f"there is no incident {incident}; {latest_incidents(settings)}")
    click.echo(json.dumps(_plain(dossier), ensure_ascii=False, indent=2) if form == "json" else story_of(dossier))


def _plain(dossier: Dossier) -> dict[str, Any]:
    return {
        "id": dossier.id,
        "stream": dossier.stream,
        "kind": dossier.kind,
        "severity": dossier.severity,
        "status": dossier.status,
        "window_start": format_time(dossier.window_start_us),
        "opened_at": format_time(dossier.opened_at_us),
        "resolved_at": None if dossier.resolved_at_us is None else format_time(dossier.resolved_at_us),
        "windows_fired": dossier.windows_fired,
        "summary": dossier.summary,
        "details": dossier.details,
        "transitions": [
            {
                "transition": step.transition,
                "at": format_time(step.at_us),
                "summary": step.summary,
                "notifications": step.told,
            }
            for step in dossier.steps
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
            for event in dossier.strangest
        ],
    }
