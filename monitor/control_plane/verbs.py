"""Apply a verb of a person to an incident: the one function behind the command line, the API and the page."""

from config.errors import ConfigError
from config.stream_rules import StreamRules
from monitor.incidents.accept import build_accepted_reference
from monitor.incidents.lifecycle import Kind
from monitor.incidents.verb_plan import VerbRequest, plan_verb
from monitor.incidents.verbs import Verb, VerbState, state_of
from monitor.thresholds.look_back_cache import LookBackCache
from monitor.thresholds.tick import load_scale
from storage.control.acceptance import AcceptedReference
from storage.control.thresholds import ThresholdStore
from storage.control.used_links import LinkUse
from storage.control.verbs import Basis, VerbFacts, VerbResult, VerbStore
from storage.database.engine import Database


class BasisChanged(ConfigError):  # noqa: N818 - names the state, as its siblings do
    """The stream has changed since the preview that the verb was given on."""


def act(
    db: Database,
    incident_id: int,
    request: VerbRequest,
    rules: StreamRules,
    *,
    now_us: int,
    basis: Basis | None = None,
    link: LinkUse | None = None,
) -> VerbResult:
    """Apply a verb to an incident in one transaction, with an audit row.

    Its effects on the calibration act at the next tick. It works with and without a running daemon.

    Args:
        db: The database.
        incident_id: The incident.
        request: The verb, the person and the note.
        rules: The rules of the incident's stream.
        now_us: Time on the database's clock.
        basis: The basis of the preview that the person has seen. None: no preview.
        link: The signed link that the person has used. None: no link.

    Returns:
        The result; its outcome is `unchanged` if the verb is repeated, and `used` if the link has acted before.

    Raises:
        ConfigError: There is no such incident, or the look-back has too few events for a reference.
        VerbRefused: The verb is not allowed in the state of the incident, or not yet.
        BasisChanged: The basis has changed; nothing was written.
    """
    store = VerbStore(db)
    facts = store.facts(incident_id)
    if facts is None:
        raise ConfigError(f"there is no incident {incident_id}")
    reference = load_new_reference(db, facts, rules) if needs_reference(facts, request) else None
    result = store.apply(
        incident_id, lambda found: plan_verb(found, request, rules, reference, now_us=now_us), basis=basis, link=link
    )
    if result.outcome == "unknown":
        raise ConfigError(f"there is no incident {incident_id}")
    if result.outcome == "stale":
        raise BasisChanged(f"the calibration of stream {facts.stream} has changed since the preview: look at it again")
    return result


def needs_reference(facts: VerbFacts, request: VerbRequest) -> bool:
    """Return whether a verb sets a new reference: the acceptance of an open incident of kind calibration."""
    is_open = state_of(facts.incident) is not VerbState.RESOLVED and request.key is None
    return request.verb is Verb.ACCEPT and is_open and facts.incident.kind == Kind.CALIBRATION


def load_new_reference(db: Database, facts: VerbFacts, rules: StreamRules) -> AcceptedReference:
    """Return the look-back's energies at the last tick as the new reference.

    Raises:
        ConfigError: There was no tick yet, or the look-back has too few events.
    """
    stream_id = facts.stream_id
    store = ThresholdStore(db)
    newest, tick_us = store.newest_threshold(stream_id), facts.basis.tick_us
    if newest is None or tick_us is None:
        raise ConfigError(
            f"stream {facts.stream} has no threshold tick yet, so there are no energies to accept as normal; "
            "try again after the next tick (threshold.refresh)"
        )
    cache = LookBackCache(stream_id, newest.model_id, load_scale(newest.details))
    cache.refresh(store, tick_us, rules)
    energies = build_accepted_reference(cache.look_back.sketch(), rules.percentile)
    return AcceptedReference(model_id=newest.model_id, at_us=tick_us, energies=energies)
