"""Parameters that several resources take."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from config.units import parse_duration, to_us
from monitor.server.paging import MAX_CURSOR_LENGTH

MAX_PAGE_ROWS = 1_000
_DEFAULT_PAGE_ROWS = 100
_MAX_BIGINT = 2**63 - 1
_MAX_INTEGER = 2**31 - 1
_MAX_TEXT_LENGTH = 1_000
_DURATION = r"^[1-9][0-9]{0,5}(ms|s|m|h|d|w)$"
_EARLIEST_US, _LATEST_US = 0, 2**62

StreamName = Annotated[
    str, Path(alias="name", pattern="^[a-z][a-z0-9_]*$", max_length=200, description="Name of the stream.")
]
IncidentId = Annotated[int, Path(alias="id", ge=1, le=_MAX_BIGINT, description="Id of the incident.")]
MuteId = Annotated[int, Path(alias="id", ge=1, le=_MAX_BIGINT, description="Id of the mute.")]
ModelVersion = Annotated[int, Path(ge=1, le=_MAX_INTEGER, description="Version of the model.")]
BigInt = Annotated[int, Field(ge=1, le=_MAX_BIGINT)]


def require_plain(text: str) -> str:
    """Check that both databases can compare a text.

    Raises:
        ValueError: The text has a control character or half a character.
    """
    if not text.isprintable():
        raise ValueError("must consist of printable characters")
    return text


PlainText = Annotated[str, Field(min_length=1, max_length=_MAX_TEXT_LENGTH), AfterValidator(require_plain)]


def require_duration(text: str) -> str:
    """Check that a text is a duration.

    Raises:
        ValueError: It is none, or longer than 200 years.
    """
    parse_duration(text)
    return text


TimeOrDuration = AwareDatetime | Annotated[str, Field(pattern=_DURATION), AfterValidator(require_duration)]
"""A time, or a duration back from the latest row."""


class PageParameters(BaseModel):
    """The parameters of a page."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=_DEFAULT_PAGE_ROWS, ge=1, le=MAX_PAGE_ROWS, description="The most rows of the page.")
    cursor: Annotated[str, Field(pattern="^[A-Za-z0-9_-]+$", max_length=MAX_CURSOR_LENGTH)] | None = Field(
        default=None, description="`next` of the page before."
    )


class TimePageParameters(PageParameters):
    """The parameters of a page of rows with times."""

    since: TimeOrDuration | None = Field(
        default=None, description="The first time, inclusive; or a duration back from the latest row, such as 6h."
    )
    until: TimeOrDuration | None = Field(
        default=None, description="The last time, exclusive; or a duration back from the latest row."
    )


def resolve_time(bound: datetime | str | None, latest_us: int | None) -> int | None:
    """Return a bound in microseconds since 1970; None without a bound, and for a duration where there are no rows."""
    if bound is None:
        return None
    if isinstance(bound, str):
        return None if latest_us is None else latest_us - to_us(parse_duration(bound))
    since_1970 = bound - datetime.fromtimestamp(0, tz=bound.tzinfo)
    return min(max(since_1970 // timedelta(microseconds=1), _EARLIEST_US), _LATEST_US)
