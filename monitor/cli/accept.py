"""`outrider accept`: this is normal now."""

import time

import click

from config.errors import ConfigError
from config.settings import Settings
from config.units import format_time, to_us
from monitor.cli.settings import settings_of
from monitor.cli.stored import database_of, latest_incidents
from storage.acceptance import NewReference, accept
from storage.dossier import Dossier, dossier_of
from storage.engine import Database
from storage.standing import stream_ids


@click.command(name="accept")
@click.argument("incident", type=int)
@click.pass_context
def command(ctx: click.Context, incident: int) -> None:
    """Say that INCIDENT is normal now: it ends, and its windows count for the limits again.

    Works while the daemon runs, which goes by it from its next threshold on, and while it does not.
    """
    settings = settings_of(ctx)
    with database_of(settings) as db:
        found = dossier_of(db, incident)
    if found is None:
        raise ConfigError(f"there is no incident {incident}; {latest_incidents(settings)}")
    if found.resolved_at_us is not None:
        how = "was accepted" if found.details.get("resolved", {}).get("reason") == "accepted" else "ended"
        raise ConfigError(f"incident {incident} {how} at {format_time(found.resolved_at_us)}; nothing was changed")
    if found.stream not in settings.streams:
        raise ConfigError(f"incident {incident} is of stream {found.stream!r}, which is not configured any more")
    with Database(settings.database.url) as db:
        db.check()
        click.echo(_accepted(db, settings, found))


def _accepted(db: Database, settings: Settings, found: Dossier) -> str:
    """Accept the incident; return what was done."""
    from monitor.control_plane.accepting import acceptance, accepted_words
    from monitor.rules import life_rule

    stream_id = stream_ids(db)[found.stream]
    reference = _reference(db, settings, found.stream, stream_id) if found.kind == "calibration" else None
    rule, now_us = life_rule(settings, found.stream), time.time_ns() // 1_000
    look_back_us = to_us(settings.streams[found.stream].threshold.look_back)
    windows = accept(
        db,
        stream_id,
        found.stream,
        found.id,
        lambda facts: acceptance(facts, rule, reference, look_back_us=look_back_us, now_us=now_us),
    )
    if windows is None:
        raise ConfigError(f"incident {found.id} has ended meanwhile; nothing was changed")
    return (
        f"Incident {found.id} ({found.kind.replace('_', ' ')} on {found.stream}) is accepted: "
        f"{accepted_words(found.kind, windows, reference)}."
    )


def _reference(db: Database, settings: Settings, stream: str, stream_id: int) -> NewReference:
    """Return the energies of the look-back as of the last tick: what is normal from now on."""
    from monitor.control_plane.accepting import accepted_energies
    from monitor.control_plane.kept_look_back import KeptLookBack
    from monitor.findings.calibration import scale_of
    from monitor.rules import control_settings
    from storage.calibration import CalibrationStore

    store, rule = CalibrationStore(db), control_settings(settings, stream, stream_id).threshold
    newest, tick_us = store.newest(stream_id), store.tick_facts(stream_id).last_tick_us
    if newest is None or tick_us is None:
        raise ConfigError(f"stream {stream} has no threshold tick yet, and so nothing to take for normal")
    kept = KeptLookBack(stream_id, newest.model_id, scale_of(newest.details))
    kept.refresh(store, tick_us, rule)
    energies = accepted_energies(kept.look_back.sketch(), rule.percentile)
    return NewReference(model_id=newest.model_id, at_us=tick_us, energies=energies)
