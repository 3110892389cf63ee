"""The mutes on the page of an incident: those in force on its messages, and the form that adds one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from config.time_format import HOUR_US
from monitor.server.access.forms import read_own_form
from monitor.server.access.person import Actor, Person
from monitor.server.context import Context, ServerContext
from monitor.server.problems import ApiError
from storage.control.mutes import (
    MutableMessage,
    MuteStore,
    NewMute,
    StoredMute,
    find_mute,
    list_matching,
    suspect_keys,
)
from storage.control.verbs import VerbFacts, VerbStore

router = APIRouter(tags=["pages"])

LENGTHS: Mapping[str, int] = {"2 h": 2 * HOUR_US, "8 h": 8 * HOUR_US, "1 d": 24 * HOUR_US}
"""Lengths of a mute to choose from, in microseconds."""

_MAX_NOTE = 500
_MAX_KEYS = 20
_INCIDENT, _KIND, _KEY = "incident", "kind", "key:"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveMute:
    """A mute in force that matches the messages of the incident.

    Attributes:
        id: The id of the mute.
        of: The messages that it matches, in words.
        ends_at_us: The end of the mute.
        who: The name of the person who added it.
        note: Their reason, or None.
        held_back: The number of messages that it has held back.
        waits: Whether it holds back nothing here, because not all suspect keys of the incident are muted.
    """

    id: int
    of: str
    ends_at_us: int
    who: str
    note: str | None
    held_back: int
    waits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentMutes:
    """The mutes in force and the choices of the form, as (value, text)."""

    active: Sequence[ActiveMute]
    choices: Sequence[tuple[str, str]]
    lengths: Sequence[str]


def build_mutes(facts: VerbFacts, stored: Iterable[StoredMute], *, now_us: int, timezone: str) -> IncidentMutes:
    """Return the mutes in force on the messages of an incident, and the choices of the form. Pure.

    Args:
        facts: The incident.
        stored: All mutes.
        now_us: Time on the database's clock.
        timezone: IANA name of the time zone of the stream.
    """
    message = _message_of(facts)
    matching = list_matching(stored, message, now_us=now_us, timezone=timezone)
    of_keys = [each for each in matching if each.key is not None]
    waits = find_mute(of_keys, message, now_us=now_us, timezone=timezone) is None
    active = [
        ActiveMute(
            id=each.id,
            of=_describe(each),
            ends_at_us=each.ends_at_us,
            who=each.who,
            note=each.note,
            held_back=each.held_back,
            waits=each.key is not None and waits,
        )
        for each in matching
    ]
    kind = message.kind.replace("_", " ")
    choices = [(_INCIDENT, "this incident"), (_KIND, f"each {kind} of {message.stream}")]
    choices += [(_KEY + key, f"key {key} of {message.stream}") for key in sorted(message.keys)[:_MAX_KEYS]]
    return IncidentMutes(active=active, choices=choices, lengths=list(LENGTHS))


@router.post("/incidents/{incident_id}/mutes")
async def add_mute(incident_id: int, request: Request, context: Context, person: Actor) -> Response:
    """Add a mute of messages of an incident, of its kind or of one of its keys."""
    fields = await read_own_form(request, context, person)
    return await run_in_threadpool(_add, context, person, incident_id, fields)


@router.post("/incidents/{incident_id}/mutes/{mute_id}/end")
async def end_mute(incident_id: int, mute_id: int, request: Request, context: Context, person: Actor) -> Response:
    """End a mute now."""
    await read_own_form(request, context, person)
    if await run_in_threadpool(MuteStore(context.writes).end, mute_id) is None:
        raise ApiError(404, f"there is no mute {mute_id}; `outrider mutes` lists them")
    return _lead_back(incident_id)


def _add(context: ServerContext, person: Person, incident_id: int, fields: dict[str, str]) -> Response:
    facts = VerbStore(context.reads).facts(incident_id)
    if facts is None:
        raise ApiError(404, f"there is no incident {incident_id}")
    length_us = LENGTHS.get(fields.get("for", ""))
    if length_us is None:
        raise ApiError(422, f"for: the length of the mute is one of {', '.join(LENGTHS)}")
    store = MuteStore(context.writes)
    store.add(_build_mute(facts, fields, person.name, store.now_us(), length_us))
    return _lead_back(incident_id)


def _build_mute(facts: VerbFacts, fields: Mapping[str, str], who: str, now_us: int, length_us: int) -> NewMute:
    """Return the mute of a form.

    Raises:
        ApiError: The form does not say which messages are meant.
    """
    message, of = _message_of(facts), fields.get("of", "")
    key = of.removeprefix(_KEY) if of.startswith(_KEY) else None
    if of not in {_INCIDENT, _KIND} and key not in message.keys:
        raise ApiError(422, "of: mute this incident, its kind on this stream, or one of its keys")
    return NewMute(
        stream=None if of == _INCIDENT else message.stream,
        kind=message.kind if of == _KIND else None,
        key=key,
        incident_id=message.incident_id if of == _INCIDENT else None,
        starts_at_us=now_us,
        ends_at_us=now_us + length_us,
        who=who,
        note=fields.get("note", "").strip()[:_MAX_NOTE] or None,
    )


def _message_of(facts: VerbFacts) -> MutableMessage:
    incident = facts.incident
    assert incident.id is not None, "a stored incident has an id"
    return MutableMessage(stream=facts.stream, kind=incident.kind, incident_id=incident.id, keys=suspect_keys(incident))


def _describe(mute: StoredMute) -> str:
    if mute.incident_id is not None:
        return "this incident"
    kind = "all messages" if mute.kind is None else f"each {mute.kind.replace('_', ' ')}"
    key = "" if mute.key is None else f" with the key {mute.key}"
    stream = "" if mute.stream is None else f" of {mute.stream}"
    weekly = "" if mute.weekly is None else f", {mute.weekly}"
    return f"{kind}{key}{stream}{weekly}"


def _lead_back(incident_id: int) -> Response:
    return RedirectResponse(f"/incidents/{incident_id}#h-mutes", status_code=303)
