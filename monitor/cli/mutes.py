"""`outrider mutes`: list, add and end mutes of messages."""

from datetime import timedelta
from typing import get_args

import click

from config.errors import ConfigError
from config.notify import IncidentKind
from config.settings import Settings
from config.time_format import format_time
from config.units import parse_duration, parse_time, to_us
from config.weekly_window import parse_weekly_window
from monitor.cli.command_group import DefaultVerbGroup
from monitor.cli.database import format_latest_incidents, has_history, open_history
from monitor.cli.output.tables import format_option, iterate_rows, write_rows
from monitor.cli.settings import load_settings
from monitor.cli.verbs import login_name, note_option, who_option
from storage.control.mutes import MuteStore, NewMute
from storage.database.engine import Database
from storage.queries.history_views import MUTES

_MAX_LENGTH = timedelta(days=366)


@click.group(name="mutes", cls=DefaultVerbGroup)
def command() -> None:
    """List, add or end mutes: they hold messages back, and hide no incident."""


@command.command(name="list")
@format_option
@click.pass_context
def list_mutes(ctx: click.Context, form: str) -> None:
    """List the mutes, with the number of messages that each has held back."""
    with open_history(load_settings(ctx)) as history:
        rows = iterate_rows(history.mutes())
        write_rows(rows, list(MUTES.columns), form, nothing="No mutes.")


@command.command(name="add")
@click.option("--stream", help="Only messages of this stream.")
@click.option("--kind", type=click.Choice(get_args(IncidentKind)), help="Only incidents of this kind.")
@click.option("--key", help="Only incidents whose suspect keys are all muted.")
@click.option("--incident", type=int, help="Only this incident.")
@click.option("--for", "length", help="Length of the mute, such as 2h.")
@click.option("--until", help="End of the mute, such as 2026-01-31T06:00:00Z.")
@click.option("--weekly", help="Only in this weekly window in the time zone of the stream: 'sat 22:00 - sun 06:00'.")
@note_option
@who_option
@click.pass_context
def add(
    ctx: click.Context,
    stream: str | None,
    kind: str | None,
    key: str | None,
    incident: int | None,
    length: str | None,
    until: str | None,
    weekly: str | None,
    note: str | None,
    who: str | None,
) -> None:
    """Add a mute. It needs an end (--for or --until) and at least one of --stream, --kind, --key and --incident."""
    settings = load_settings(ctx)
    if stream is None and kind is None and key is None and incident is None:
        raise click.UsageError("name what is muted: --stream, --kind, --key or --incident")
    if weekly is not None:
        parse_weekly_window(weekly)
    if stream is not None:
        with open_history(settings) as history:
            has_history(settings, history.streams(), stream)
    with Database(settings.database.url) as db:
        db.check_schema()
        store = MuteStore(db)
        now_us = store.now_us()
        _require_incident(store, settings, incident)
        mute = NewMute(
            stream=stream,
            kind=kind,
            key=key,
            incident_id=incident,
            starts_at_us=now_us,
            ends_at_us=_resolve_end(length, until, now_us),
            weekly=weekly,
            who=who or login_name(),
            note=note,
        )
        mute_id = store.add(mute)
    click.echo(f"Mute {mute_id} holds {_describe(mute)} back until {format_time(mute.ends_at_us)}.")


@command.command(name="end")
@click.argument("mute", type=int)
@click.pass_context
def end(ctx: click.Context, mute: int) -> None:
    """End MUTE now."""
    settings = load_settings(ctx)
    with Database(settings.database.url) as db:
        db.check_schema()
        store = MuteStore(db)
        now_us = store.now_us()
        ended = store.end(mute)
    if ended is None:
        raise ConfigError(f"there is no mute {mute}; `outrider mutes` lists them")
    messages = "1 message" if ended.held_back == 1 else f"{ended.held_back:,} messages"
    when = "is ended" if ended.ends_at_us > now_us else f"ended at {format_time(ended.ends_at_us)} already"
    click.echo(f"Mute {mute} {when}; it held {messages} back.")


def _require_incident(store: MuteStore, settings: Settings, incident: int | None) -> None:
    if incident is not None and not store.has_incident(incident):
        raise ConfigError(f"there is no incident {incident}; {format_latest_incidents(settings)}")


def _resolve_end(length: str | None, until: str | None, now_us: int) -> int:
    """Return the end of a mute, in microseconds since 1970."""
    if (length is None) == (until is None):
        raise click.UsageError("give the end of the mute, with either --for or --until")
    try:
        end_us = now_us + to_us(parse_duration(length)) if length is not None else parse_time(until or "")
    except ValueError as error:
        raise ConfigError(f"{'--for' if until is None else '--until'}: {error}") from None
    if not now_us < end_us <= now_us + to_us(_MAX_LENGTH):
        raise ConfigError(f"a mute ends in the future, within {_MAX_LENGTH.days} days")
    return end_us


def _describe(mute: NewMute) -> str:
    what = "messages" if mute.kind is None else f"messages of kind {mute.kind}"
    of = "" if mute.stream is None else f" of stream {mute.stream}"
    key = "" if mute.key is None else f" with the suspect key {mute.key}"
    incident = "" if mute.incident_id is None else f" of incident {mute.incident_id}"
    weekly = "" if mute.weekly is None else f" in {mute.weekly}"
    return f"{what}{of}{incident}{key}{weekly}"
