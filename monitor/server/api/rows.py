"""Models of the rows of SQL views: the same names and meanings as the columns."""

import base64
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema, create_model

from config.time_format import format_time
from storage.database.view_columns import describe_columns
from storage.queries import history_views
from storage.queries.history_views import ColumnKind, HistoryView

_LATEST_US = 253_402_300_799_999_999
"""The last microsecond of the year 9999."""


def time_text(value: object) -> object:
    """Return a time of a view, or one in microseconds since 1970, as RFC 3339 in UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
    if isinstance(value, int):
        return format_time(min(value, _LATEST_US))
    return value


def _base64_text(value: object) -> object:
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value


Time = Annotated[str, BeforeValidator(time_text), WithJsonSchema({"type": "string", "format": "date-time"})]
Bytes = Annotated[str, BeforeValidator(_base64_text), WithJsonSchema({"type": "string", "contentEncoding": "base64"})]

_TYPES: Mapping[ColumnKind, Any] = {
    "text": str,
    "int": int,
    "maybe_int": int,
    "float": float,
    "energy": float,
    "bool": bool,
    "time": Time,
    "json": dict[str, Any],
    "bytes": Bytes,
}
_ALWAYS = frozenset(
    {
        "id",
        "incident_id",
        "window_start",
        "window_end",
        "events",
        "outliers",
        "computed_at",
        "valid_from",
        "event_time",
        "opened_at",
        "status",
        "severity",
        "verb",
        "who",
        "at",
        "held_back",
        "transition",
        "channel",
        "state",
        "attempts",
        "reason",
        "horizon",
        "statistic",
        "drifted",
        "starts_at",
        "ends_at",
    }
)
"""Columns that are never NULL, in the views that have them as their own."""


def _with_columns(view: HistoryView, keys: tuple[str, ...], **columns: ColumnKind) -> HistoryView:
    """Return a view with further columns, and with key columns that never change and have an index."""
    return replace(view, columns={**view.columns, **columns}, key_columns=keys)


WINDOWS = _with_columns(
    history_views.WINDOWS,
    ("window_start_us",),
    threshold="float",
    dead="int",
    filtered="int",
    judged_at="time",
    fires_at="maybe_int",
)
THRESHOLDS = _with_columns(history_views.THRESHOLDS, ("valid_from_us", "id"), details="json")
OUTLIERS = _with_columns(
    history_views.OUTLIERS, ("event_time_us", "source_id", "source_offset"), habitual="bool", trace_id="text"
)
DRIFT = _with_columns(history_views.DRIFT, ("window_end_us", "id"))
CALIBRATION = _with_columns(history_views.CALIBRATION, ("at_us",))
INCIDENTS = _with_columns(history_views.INCIDENTS, ("opened_at_us", "id"), windows_fired="int")
VERDICTS = _with_columns(history_views.VERDICTS, ("id",))
MUTES = _with_columns(history_views.MUTES, ("id",), created_at="time")
NOTIFICATIONS = _with_columns(
    history_views.NOTIFICATIONS, ("created_at_us", "id"), stream="text", summary="text", next_attempt_at="time"
)
DEAD_LETTERS = _with_columns(history_views.DEAD_LETTERS, ("id",), count="int", end_offset="int", incarnation="int")
GAPS = _with_columns(history_views.GAPS, ("id",), incarnation="int")


def build_list_model(name: str, view: HistoryView) -> type[BaseModel]:
    """Return the model of a page of a view's rows.

    Args:
        name: The name of a row in the OpenAPI document.
        view: The view.
    """
    meanings = describe_columns(view.name)
    fields: dict[str, Any] = {
        column: _field(
            kind, meanings[column], is_optional=column not in _ALWAYS or (view is MUTES and column == "incident_id")
        )
        for column, kind in view.columns.items()
    }
    row = create_model(name, **fields)
    return create_model(
        f"{name}Page",
        items=(list[row], Field(description="The rows, newest first.")),
        next=(str | None, Field(description="The cursor of the next page; null on the last one.")),
    )


def _field(kind: ColumnKind, meaning: str, *, is_optional: bool) -> tuple[Any, Any]:
    kept = _TYPES[kind]
    return (kept | None if is_optional else kept), Field(description=meaning)
