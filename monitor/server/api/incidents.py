"""One incident: its report, the preview of a verb, and the verb."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from config.errors import ConfigError
from monitor.control_plane.preview import SameWindow, VerbPreview
from monitor.control_plane.verbs import BasisChanged
from monitor.daemon.verbs import apply_configured_verb, preview_configured_verb
from monitor.incidents.accepted_keys import list_acceptable_keys
from monitor.incidents.verb_plan import MAX_NOTE_CHARACTERS, VerbRequest
from monitor.incidents.verbs import Verb, VerbRefused, allowed_verbs, state_of
from monitor.server.access.person import Actor, Reader
from monitor.server.api.parameters import IncidentId
from monitor.server.api.rows import Time
from monitor.server.context import Context, ServerContext
from monitor.server.etag import CachedRoute, basis_etag, parse_basis_etag
from monitor.server.problems import ApiError
from storage.control.verbs import VerbFacts, VerbStore
from storage.queries.incident_report import IncidentReport, ReportedOutlier, ReportedVerb, load_incident_report
from storage.queries.similar_incidents import SimilarIncident, read_similar_incidents

router = APIRouter(tags=["incidents"], route_class=CachedRoute)

VerbName = Literal["acknowledge", "accept", "false_alarm", "false-alarm", "confirm", "resolve", "reopen"]

_PREVIEWS_AT_ONCE = 2
_PREVIEW_WAIT_S = 10.0
_previews = threading.BoundedSemaphore(_PREVIEWS_AT_ONCE)


class TransitionRow(BaseModel):
    """A transition of an incident, with the state of its notification by channel."""

    transition: str = Field(description="`opened`, `escalated`, `repeated`, `acknowledged`, `resolved` or `reopened`.")
    at: Time = Field(description="Event time of the transition.")
    recorded_at: Time = Field(description="Time of storing, by the clock of the database.")
    summary: str = Field(description="The transition in one sentence.")
    notification_states: Mapping[str, str] = Field(description="The state of the message by channel.")


class IncidentDetail(BaseModel):
    """One incident: all that led to it, and all that was done. `*_us` are microseconds since 1970 (UTC)."""

    id: int
    stream: str
    kind: str
    severity: str
    status: str
    window_start: Time = Field(description="Start of the first window.")
    opened_at: Time = Field(description="Event time of the opening.")
    resolved_at: Time | None = Field(description="Event time of the resolution, or null.")
    windows_fired: int = Field(description="Number of windows that fired.")
    summary: str
    details: Mapping[str, Any] = Field(description="Every number that led to the incident.")
    verdict: str | None = Field(description="`accepted`, `false_alarm`, `confirmed`, or null.")
    acknowledged_by: str | None
    acknowledged_at: Time | None
    transitions: list[TransitionRow]
    verbs: list[ReportedVerb] = Field(description="The verbs that people applied.")
    top_outliers: list[ReportedOutlier] = Field(description="The strangest events of the first window.")
    similar: list[SimilarIncident] = Field(description="Earlier incidents with similar contributions, best first.")
    allowed_verbs: list[str] = Field(description="The verbs that are possible in this state.")
    acceptable_keys: list[str] = Field(description="The keys whose habit `accept` can confirm, by their `key`.")


class BasisModel(BaseModel):
    """The state of a stream that a preview was computed from."""

    tick: Time | None = Field(description="The last tick of the threshold, in event time.")
    revision: int = Field(description="A number that grows with each change of the calibration or the models.")


class ThresholdPreview(BaseModel):
    """The threshold of the last tick, as stored and as computed again with the verb."""

    before: float
    after: float
    lower: float | None = Field(description="Lower end of the interval afterwards.")
    upper: float | None = Field(description="Upper end of the interval afterwards.")


class PreviewModel(BaseModel):
    """The changes that a verb would make; nothing is written."""

    incident_id: int
    verb: Verb
    etag: str = Field(description="The value of If-Match for the verb; also the ETag of the answer.")
    basis: BasisModel
    changes: bool = Field(description="False for a verb that was applied already.")
    status: str = Field(description="The status afterwards.")
    verdict: str | None = Field(description="The verdict afterwards.")
    message: str | None = Field(description="The transition whose message would be sent, or null.")
    windows: int = Field(description="Number of windows that would count again in the calibration, or no longer.")
    windows_count: bool | None = Field(description="Whether those windows would count; null: no change.")
    threshold: ThresholdPreview | None = Field(description="Null if the verb does not change the threshold.")
    same_window: SameWindow | None = Field(description="The strangest window of the incident afterwards, or null.")
    keys: list[str] = Field(description="The keys whose habit would be accepted, or no longer be.")


class VerbBody(BaseModel):
    """The body of a verb."""

    model_config = ConfigDict(extra="forbid")

    note: Annotated[str, Field(max_length=MAX_NOTE_CHARACTERS)] | None = Field(
        default=None, description="A reason, stored with the verb and told with its message."
    )
    key: str | None = Field(
        default=None,
        description="With `accept`: the key of the incident whose habit is normal. The incident stays as it is.",
    )


class VerbAnswer(BaseModel):
    """The incident after a verb."""

    incident_id: int
    verb: Verb
    outcome: Literal["done", "unchanged"] = Field(description="`unchanged`: the verb was applied already.")
    windows: int = Field(description="Number of windows that count again in the calibration, or no longer.")
    effects: Mapping[str, Any] = Field(description="The changes of the calibration, valid from the next tick on.")


@router.get("/incidents/{id}")
def show_incident(context: Context, _person: Reader, incident_id: IncidentId) -> IncidentDetail:
    """Show one incident with everything that led to it."""
    report = load_incident_report(context.reads, incident_id)
    facts = _load_facts(context, incident_id)
    if report is None:
        raise _unknown(incident_id)
    with context.reads.read() as connection:
        similar = read_similar_incidents(connection, incident_id)
    return _to_detail(report, facts, similar)


@router.get("/incidents/{id}/preview")
def preview(
    context: Context,
    person: Reader,
    response: Response,
    incident_id: IncidentId,
    verb: Annotated[VerbName, Query(description="The verb.")],
    key: Annotated[
        str | None, Query(description="With `accept`: the key of the incident whose habit is normal.")
    ] = None,
) -> PreviewModel:
    """Show the changes that a verb would make. The ETag names the basis: send it as If-Match with the verb."""
    facts = _load_facts(context, incident_id)
    with _translated_refusals():
        request = VerbRequest(verb=_to_verb(verb), who=person.name, key=key)
    with _translated_refusals(), _one_of_few():
        found = preview_configured_verb(context.reads, context.settings, facts, request, look_backs=context.look_backs)
    response.headers["ETag"] = basis_etag(found.basis)
    return _to_preview(incident_id, request.verb, found)


@router.post("/incidents/{id}/{verb}")
def apply_verb(
    context: Context,
    person: Actor,
    incident_id: IncidentId,
    verb: VerbName,
    if_match: Annotated[str | None, Header(description="The ETag of the preview, or `*` to act without one.")] = None,
    body: Annotated[VerbBody | None, Body()] = None,
) -> VerbAnswer:
    """Apply a verb. 428 without If-Match; 412 if the basis has changed since the preview; 409 in a wrong state."""
    basis = parse_basis_etag(if_match)
    facts = _load_facts(context, incident_id)
    body = body or VerbBody()
    with _translated_refusals():
        request = VerbRequest(verb=_to_verb(verb), who=person.name, note=body.note, key=body.key)
        result = apply_configured_verb(context.writes, context.settings, facts, request, basis)
    outcome: Literal["done", "unchanged"] = "unchanged" if result.outcome == "unchanged" else "done"
    return VerbAnswer(
        incident_id=incident_id, verb=request.verb, outcome=outcome, windows=result.windows, effects=result.effects
    )


def _load_facts(context: ServerContext, incident_id: int) -> VerbFacts:
    facts = VerbStore(context.reads).facts(incident_id)
    if facts is None:
        raise _unknown(incident_id)
    return facts


def _unknown(incident_id: int) -> ApiError:
    return ApiError(404, f"there is no incident {incident_id}; GET /api/v1/incidents lists them")


def _to_verb(name: str) -> Verb:
    return Verb(name.replace("-", "_"))


@contextmanager
def _translated_refusals() -> Iterator[None]:
    """Answer 412 for a changed basis, and 409 for a verb that is not possible now."""
    try:
        yield
    except BasisChanged as error:
        raise ApiError(412, str(error)) from None
    except (VerbRefused, ConfigError) as error:
        raise ApiError(409, str(error)) from None


@contextmanager
def _one_of_few() -> Iterator[None]:
    """Wait for one of the few previews that are computed at once.

    Raises:
        ApiError: All of them take too long (503).
    """
    if not _previews.acquire(timeout=_PREVIEW_WAIT_S):
        raise ApiError(503, "too many previews are computed now; try again", headers={"Retry-After": "5"})
    try:
        yield
    finally:
        _previews.release()


def _to_detail(report: IncidentReport, facts: VerbFacts, similar: list[SimilarIncident]) -> IncidentDetail:
    return IncidentDetail(
        id=report.id,
        stream=report.stream,
        kind=report.kind,
        severity=report.severity,
        status=report.status,
        window_start=report.window_start_us,
        opened_at=report.opened_at_us,
        resolved_at=report.resolved_at_us,
        windows_fired=report.windows_fired,
        summary=report.summary,
        details=report.details,
        verdict=report.verdict,
        acknowledged_by=report.acknowledged_by,
        acknowledged_at=report.acknowledged_at_us,
        transitions=[
            TransitionRow(
                transition=each.transition,
                at=each.at_us,
                recorded_at=each.recorded_at_us,
                summary=each.summary,
                notification_states=each.notification_states,
            )
            for each in report.transitions
        ],
        verbs=list(report.verbs),
        top_outliers=list(report.top_outliers),
        similar=similar,
        allowed_verbs=allowed_verbs(report.kind, state_of(facts.incident)),
        acceptable_keys=list_acceptable_keys(facts),
    )


def _to_preview(incident_id: int, verb: Verb, found: VerbPreview) -> PreviewModel:
    plan, before = found.plan, found.facts.incident
    threshold = None
    if found.stored is not None and found.computed is not None:
        computed = found.computed
        threshold = ThresholdPreview(
            before=found.stored.threshold, after=computed.threshold, lower=computed.lower, upper=computed.upper
        )
    transition = None if plan is None else plan.incident_row.transition
    return PreviewModel(
        incident_id=incident_id,
        verb=verb,
        etag=basis_etag(found.basis),
        basis=BasisModel(tick=found.basis.tick_us, revision=found.basis.revision),
        changes=plan is not None,
        status=before.status if plan is None else plan.incident_row.status,
        verdict=found.facts.verdict if plan is None else plan.verdict,
        message=None if transition is None else transition.type,
        windows=found.windows,
        windows_count=None if plan is None else plan.windows,
        threshold=threshold,
        same_window=found.same_window,
        keys=[] if plan is None or plan.keys is None else list(plan.keys.effects["keys"]),
    )
