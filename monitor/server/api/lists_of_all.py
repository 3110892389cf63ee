"""Lists over all streams: incidents, verdicts, notifications, dead letters and gaps."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from config.notify import IncidentKind, Severity
from monitor.server.access.person import Reader
from monitor.server.api import rows
from monitor.server.api.lists import read_list
from monitor.server.api.parameters import BigInt, PageParameters, PlainText, TimePageParameters
from monitor.server.context import Context
from monitor.server.etag import CachedRoute

router = APIRouter(route_class=CachedRoute)

IncidentPage = rows.build_list_model("Incident", rows.INCIDENTS)
VerdictPage = rows.build_list_model("Verdict", rows.VERDICTS)
NotificationPage = rows.build_list_model("Notification", rows.NOTIFICATIONS)
DeadLetterPage = rows.build_list_model("DeadLetter", rows.DEAD_LETTERS)
GapPage = rows.build_list_model("Gap", rows.GAPS)

_StreamFilter = Annotated[PlainText | None, Field(description="Only this stream.")]


class IncidentParameters(TimePageParameters):
    """The parameters of the list of incidents."""

    stream: _StreamFilter = None
    kind: IncidentKind | None = Field(default=None, description="Only incidents of this kind.")
    severity: Severity | None = Field(default=None, description="Only incidents of this severity.")
    status: Literal["open", "resolved"] | None = Field(default=None, description="Only incidents of this status.")
    verdict: Literal["accepted", "false_alarm", "confirmed"] | None = Field(
        default=None, description="Only incidents with this verdict."
    )


class VerdictParameters(TimePageParameters):
    """The parameters of the list of verbs that people applied."""

    stream: _StreamFilter = None
    incident_id: BigInt | None = Field(default=None, description="Only this incident.")
    who: PlainText | None = Field(default=None, description="Only this person.")


class NotificationParameters(TimePageParameters):
    """The parameters of the list of notifications."""

    stream: _StreamFilter = None
    incident_id: BigInt | None = Field(default=None, description="Only this incident.")
    channel: PlainText | None = Field(default=None, description="Only this channel.")
    state: Literal["pending", "delivered", "skipped", "muted", "dead"] | None = Field(
        default=None, description="Only notifications in this state."
    )


class DeadLetterParameters(TimePageParameters):
    """The parameters of the list of dead letters."""

    stream: _StreamFilter = None
    reason: PlainText | None = Field(default=None, description="Only dead letters with this reason.")


class GapParameters(PageParameters):
    """The parameters of the list of gaps."""

    stream: _StreamFilter = None


@router.get("/incidents", response_model=IncidentPage, tags=["incidents"])
def list_incidents(
    context: Context, _person: Reader, parameters: Annotated[IncidentParameters, Query()]
) -> dict[str, Any]:
    """List the incidents by the time of opening."""
    return read_list(context, rows.INCIDENTS, parameters)


@router.get("/verdicts", response_model=VerdictPage, tags=["incidents"])
def list_verdicts(
    context: Context, _person: Reader, parameters: Annotated[VerdictParameters, Query()]
) -> dict[str, Any]:
    """List the verbs that people applied to incidents."""
    return read_list(context, rows.VERDICTS, parameters)


@router.get("/notifications", response_model=NotificationPage, tags=["notifications"])
def list_notifications(
    context: Context, _person: Reader, parameters: Annotated[NotificationParameters, Query()]
) -> dict[str, Any]:
    """List the messages of all channels."""
    return read_list(context, rows.NOTIFICATIONS, parameters)


@router.get("/dead-letters", response_model=DeadLetterPage, tags=["input"])
def list_dead_letters(
    context: Context, _person: Reader, parameters: Annotated[DeadLetterParameters, Query()]
) -> dict[str, Any]:
    """List the records that the codec rejected."""
    return read_list(context, rows.DEAD_LETTERS, parameters)


@router.get("/gaps", response_model=GapPage, tags=["input"])
def list_gaps(context: Context, _person: Reader, parameters: Annotated[GapParameters, Query()]) -> dict[str, Any]:
    """List the ranges of offsets that could not be read."""
    return read_list(context, rows.GAPS, parameters)
