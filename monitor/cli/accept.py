"""`outrider accept`: accept an incident as normal."""

import time

import click

from config.errors import ConfigError
from config.settings import Settings
from config.time_format import format_time
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
    """Accept INCIDENT as normal: resolve it, and treat its windows as normal from now on.

    Works with and without a running daemon. A running daemon applies the change at its next threshold tick.
    """
    settings = load_settings(ctx)
    with open_database(settings) as db:
        report = load_incident_report(db, incident)
    if report is None:
        raise ConfigError(f"there is no incident {incident}; {format_latest_incidents(settings)}")
    if report.resolved_at_us is not None:
        how = "was accepted" if report.details.get("resolved", {}).get("reason") == "accepted" else "ended"
        raise ConfigError(f"incident {incident} {how} at {format_time(report.resolved_at_us)}; nothing was changed")
    if report.stream not in settings.streams:
        raise ConfigError(
            f"incident {incident} belongs to stream {report.stream!r}, which is not in the configuration; "
            "add the stream again to accept the incident"
        )
    with Database(settings.database.url) as db:
        db.check_schema()
        click.echo(_accept_incident(db, settings, report))


def _accept_incident(db: Database, settings: Settings, report: IncidentReport) -> str:
    """Accept the incident and return the text to print."""
    from monitor.daemon.rules import build_stream_rules
    from monitor.incidents.accept import describe_acceptance, plan_acceptance

    stream_id = load_stream_ids(db)[report.stream]
    reference = _load_new_reference(db, settings, report.stream, stream_id) if report.kind == "calibration" else None
    rules, now_us = build_stream_rules(settings, report.stream), time.time_ns() // 1_000
    windows = accept_incident(
        db,
        stream_id,
        report.stream,
        report.id,
        lambda facts: plan_acceptance(facts, rules, reference, now_us=now_us),
    )
    if windows is None:
        raise ConfigError(f"incident {report.id} was resolved in the meantime; nothing was changed")
    return (
        f"Incident {report.id} ({report.kind.replace('_', ' ')} on {report.stream}) is accepted: "
        f"{describe_acceptance(report.kind, windows, reference)}."
    )


def _load_new_reference(db: Database, settings: Settings, stream: str, stream_id: int) -> AcceptedReference:
    """Return the look-back's energies at the last tick as the new reference."""
    from monitor.daemon.rules import build_stream_rules
    from monitor.incidents.accept import build_accepted_reference
    from monitor.thresholds.look_back_cache import LookBackCache
    from monitor.thresholds.tick import load_scale
    from storage.control.thresholds import ThresholdStore

    store, rules = ThresholdStore(db), build_stream_rules(settings, stream)
    newest, tick_us = store.newest_threshold(stream_id), store.tick_facts(stream_id).last_tick_us
    if newest is None or tick_us is None:
        raise ConfigError(
            f"stream {stream} has no threshold tick yet, so there are no energies to accept as normal; "
            "try again after the next tick (threshold.refresh)"
        )
    cache = LookBackCache(stream_id, newest.model_id, load_scale(newest.details))
    cache.refresh(store, tick_us, rules)
    energies = build_accepted_reference(cache.look_back.sketch(), rules.percentile)
    return AcceptedReference(model_id=newest.model_id, at_us=tick_us, energies=energies)
