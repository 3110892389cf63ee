"""`outrider accept`: this is normal now."""

import time

import click

from config.errors import ConfigError
from config.settings import Settings
from config.units import format_time, to_us
from monitor.cli.database import format_latest_incidents, open_database
from monitor.cli.settings import load_settings
from storage.control.acceptance import AcceptedReference, accept_incident
from storage.database.engine import Database
from storage.queries.incident_report import IncidentReport, load_incident_report
from storage.queries.status import load_stream_ids


@click.command(name="accept")
@click.argument("incident", type=int)
@click.pass_context
def command(ctx: click.Context, incident: int) -> None:
    """Say that INCIDENT is normal now: it ends, and its windows count for the limits again.

    Works while the daemon runs, which goes by it from its next threshold on, and while it does not.
    """
    settings = load_settings(ctx)
    with open_database(settings) as db:
        found = load_incident_report(db, incident)
    if found is None:
        raise ConfigError(f"there is no incident {incident}; {format_latest_incidents(settings)}")
    if found.resolved_at_us is not None:
        how = "was accepted" if found.details.get("resolved", {}).get("reason") == "accepted" else "ended"
        raise ConfigError(f"incident {incident} {how} at {format_time(found.resolved_at_us)}; nothing was changed")
    if found.stream not in settings.streams:
        raise ConfigError(f"incident {incident} is of stream {found.stream!r}, which is not configured any more")
    with Database(settings.database.url) as db:
        db.check_schema()
        click.echo(_accept_incident(db, settings, found))


def _accept_incident(db: Database, settings: Settings, found: IncidentReport) -> str:
    """Accept the incident; return what was done."""
    from monitor.daemon.rules import build_incident_policy
    from monitor.incidents.accept import describe_acceptance, plan_acceptance

    stream_id = load_stream_ids(db)[found.stream]
    reference = _load_new_reference(db, settings, found.stream, stream_id) if found.kind == "calibration" else None
    rule, now_us = build_incident_policy(settings, found.stream), time.time_ns() // 1_000
    look_back_us = to_us(settings.streams[found.stream].threshold.look_back)
    windows = accept_incident(
        db,
        stream_id,
        found.stream,
        found.id,
        lambda facts: plan_acceptance(facts, rule, reference, look_back_us=look_back_us, now_us=now_us),
    )
    if windows is None:
        raise ConfigError(f"incident {found.id} has ended meanwhile; nothing was changed")
    return (
        f"Incident {found.id} ({found.kind.replace('_', ' ')} on {found.stream}) is accepted: "
        f"{describe_acceptance(found.kind, windows, reference)}."
    )


def _load_new_reference(db: Database, settings: Settings, stream: str, stream_id: int) -> AcceptedReference:
    """Return the energies of the look-back as of the last tick: what is normal from now on."""
    from monitor.daemon.rules import build_control_settings
    from monitor.incidents.accept import build_accepted_reference
    from monitor.thresholds.look_back_cache import LookBackCache
    from monitor.thresholds.tick import load_scale
    from storage.control.thresholds import ThresholdStore

    store, rule = ThresholdStore(db), build_control_settings(settings, stream, stream_id).threshold
    newest, tick_us = store.newest_threshold(stream_id), store.tick_facts(stream_id).last_tick_us
    if newest is None or tick_us is None:
        raise ConfigError(f"stream {stream} has no threshold tick yet, and so nothing to take for normal")
    kept = LookBackCache(stream_id, newest.model_id, load_scale(newest.details))
    kept.refresh(store, tick_us, rule)
    energies = build_accepted_reference(kept.look_back.sketch(), rule.percentile)
    return AcceptedReference(model_id=newest.model_id, at_us=tick_us, energies=energies)
