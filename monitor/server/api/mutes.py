"""Mutes: messages that are held back."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from config.errors import ConfigError
from config.notify import IncidentKind
from config.time_format import DAY_US
from config.units import parse_duration, to_us
from config.weekly_window import parse_weekly_window
from monitor.server.access.person import Actor, Reader
from monitor.server.api import rows
from monitor.server.api.lists import read_list
from monitor.server.api.parameters import BigInt, MuteId, PageParameters, PlainText, resolve_time
from monitor.server.api.rows import Time
from monitor.server.context import Context
from monitor.server.etag import CachedRoute
from monitor.server.problems import ApiError
from storage.control.mutes import MuteStore, NewMute

router = APIRouter(prefix="/mutes", tags=["mutes"], route_class=CachedRoute)

MutePage = rows.build_list_model("Mute", rows.MUTES)

_MAX_LENGTH_US = 366 * DAY_US
_MAX_NOTE_LENGTH = 2_000
_DURATION = r"^[1-9][0-9]{0,4}(s|m|h|d|w)$"


class MuteBody(BaseModel):
    """A mute to add: an end (`for` or `until`), and at least one of stream, kind, key and incident_id."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    stream: PlainText | None = Field(default=None, description="Only messages of this stream.")
    kind: IncidentKind | None = Field(default=None, description="Only incidents of this kind.")
    key: PlainText | None = Field(default=None, description="Only incidents whose suspect keys are all muted.")
    incident_id: BigInt | None = Field(default=None, description="Only this incident.")
    length: Annotated[str, Field(pattern=_DURATION)] | None = Field(
        default=None, alias="for", description="Length of the mute, such as 2h."
    )
    until: AwareDatetime | None = Field(default=None, description="End of the mute.")
    weekly: PlainText | None = Field(
        default=None, description="Only in this weekly window in the time zone of the stream: 'sat 22:00 - sun 06:00'."
    )
    note: Annotated[str, Field(max_length=_MAX_NOTE_LENGTH)] | None = Field(default=None, description="A reason.")

    @model_validator(mode="after")
    def _check(self) -> "MuteBody":
        if self.stream is None and self.kind is None and self.key is None and self.incident_id is None:
            raise ValueError("name the messages: stream, kind, key or incident_id")
        if (self.length is None) == (self.until is None):
            raise ValueError("give the end of the mute, with either `for` or `until`")
        return self


class MuteAnswer(BaseModel):
    """A mute after it was added or ended."""

    id: int = Field(description="Id of the mute.")
    ends_at: Time = Field(description="End of the mute.")
    held_back: int = Field(description="Number of messages that it has held back.")


@router.get("", response_model=MutePage)
def list_mutes(context: Context, _person: Reader, parameters: Annotated[PageParameters, Query()]) -> dict[str, Any]:
    """List the mutes, also those that have ended, with the number of messages that each has held back."""
    return read_list(context, rows.MUTES, parameters)


@router.post("", status_code=201)
def add_mute(context: Context, person: Actor, body: MuteBody) -> MuteAnswer:
    """Add a mute. It starts now and hides no incident."""
    _check_weekly(body.weekly)
    store = MuteStore(context.writes)
    now_us = store.now_us()
    ends_at_us = now_us + to_us(parse_duration(body.length)) if body.length else resolve_time(body.until, None) or 0
    if not now_us < ends_at_us <= now_us + _MAX_LENGTH_US:
        raise ApiError(422, "until: a mute ends in the future, within 366 days")
    if body.stream is not None and body.stream not in {*context.settings.streams, *store.stream_names()}:
        raise ApiError(422, f"stream: there is no stream {body.stream!r}")
    if body.incident_id is not None and not store.has_incident(body.incident_id):
        raise ApiError(422, f"incident_id: there is no incident {body.incident_id}")
    mute_id = store.add(
        NewMute(
            stream=body.stream,
            kind=body.kind,
            key=body.key,
            incident_id=body.incident_id,
            starts_at_us=now_us,
            ends_at_us=ends_at_us,
            weekly=body.weekly,
            who=person.name,
            note=body.note,
        )
    )
    return MuteAnswer(id=mute_id, ends_at=ends_at_us, held_back=0)


@router.post("/{id}/end")
def end_mute(context: Context, _person: Actor, mute_id: MuteId) -> MuteAnswer:
    """End a mute now; one that has ended stays as it is."""
    store = MuteStore(context.writes)
    now_us = store.now_us()
    ended = store.end(mute_id)
    if ended is None:
        raise ApiError(404, f"there is no mute {mute_id}; GET /api/v1/mutes lists them")
    return MuteAnswer(id=mute_id, ends_at=min(ended.ends_at_us, now_us), held_back=ended.held_back)


def _check_weekly(text: str | None) -> None:
    if text is not None:
        try:
            parse_weekly_window(text)
        except ConfigError as error:
            raise ApiError(422, f"weekly: {error}") from None
