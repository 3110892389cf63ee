"""Verbs of people with the rules of the configured streams: for the command line, the API and the page."""

from collections.abc import Callable

from config.errors import ConfigError
from config.settings import Settings
from config.stream_rules import RuleSchedule, StreamRules
from monitor.control_plane.kept_look_backs import KeptLookBacks
from monitor.control_plane.model_cache import ModelCache
from monitor.control_plane.preview import VerbPreview, preview_verb
from monitor.control_plane.stores import ModelsProtocol
from monitor.control_plane.verbs import act
from monitor.daemon.rules import build_rule_schedule, build_stream_rules
from monitor.daemon.stored_sizes import follow_stored_sizes
from monitor.incidents.verb_plan import VerbRequest
from storage.control.models import ModelStore
from storage.control.settings import SettingsStore
from storage.control.verbs import Basis, VerbFacts, VerbResult
from storage.database.engine import Database


def preview_configured_verb(
    db: Database,
    settings: Settings,
    facts: VerbFacts,
    request: VerbRequest,
    load_models: Callable[[], ModelsProtocol] | None = None,
    look_backs: KeptLookBacks | None = None,
) -> VerbPreview:
    """Return what a verb would change on an incident of a configured stream; nothing is written.

    Args:
        db: The database.
        settings: All settings.
        facts: The incident and the state of its stream.
        request: The verb.
        load_models: Returns the models of the stream; called only if a threshold is computed.
        look_backs: The kept look-backs, for a process that previews many verbs.

    Raises:
        VerbRefused: The verb is not allowed in the state of the incident, or not yet.
        ConfigError: The stream is not configured, or the look-back has too few events for a reference.
    """
    return preview_verb(
        db,
        facts,
        request,
        read_rule_schedule(db, settings, facts),
        load_models or (lambda: ModelCache(facts.stream, ModelStore(db))),
        now_us=db.now_us(),
        look_backs=look_backs,
    )


def apply_configured_verb(
    db: Database, settings: Settings, facts: VerbFacts, request: VerbRequest, basis: Basis | None
) -> VerbResult:
    """Apply a verb to an incident of a configured stream.

    Args:
        db: The database.
        settings: All settings.
        facts: The incident, as it was read from the database.
        request: The verb, the person and the note.
        basis: The basis of the preview that the person has seen. None: no preview.

    Raises:
        VerbRefused: The verb is not allowed in the state of the incident, or not yet.
        BasisChanged: The basis has changed; nothing was written.
        ConfigError: The stream is not configured, or the look-back has too few events for a reference.
    """
    incident_id = facts.incident.id
    assert incident_id is not None, "facts are read from the database"
    return act(db, incident_id, request, read_newest_rules(db, settings, facts), now_us=db.now_us(), basis=basis)


def read_newest_rules(db: Database, settings: Settings, facts: VerbFacts) -> StreamRules:
    """Return the rules of the file for an incident's stream, with the stored sizes of settings that are `auto`."""
    _require_stream(settings, facts)
    return build_stream_rules(follow_stored_sizes(db, settings), facts.stream)


def read_rule_schedule(db: Database, settings: Settings, facts: VerbFacts) -> RuleSchedule:
    """Return the rules of an incident's stream over event time."""
    _require_stream(settings, facts)
    settings = follow_stored_sizes(db, settings)
    rows = SettingsStore(db).read_rows(facts.stream_id)
    if not rows:
        return RuleSchedule.constant(build_stream_rules(settings, facts.stream))
    return build_rule_schedule(settings, facts.stream, rows)


def _require_stream(settings: Settings, facts: VerbFacts) -> None:
    if facts.stream not in settings.streams:
        raise ConfigError(
            f"incident {facts.incident.id} belongs to stream {facts.stream!r}, which is not in the configuration; "
            "add the stream again to act on the incident"
        )
