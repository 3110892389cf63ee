"""The models of a stream side by side, and the ledger of promised and realised false alarms."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from config.time_format import DAY_US
from storage.database.tables import calibrations, incidents, models, shadow_windows, shadows, streams, windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The outliers of a shadow model and of the active one, over the windows that both scored completely.

    `both`, `active_only`, `shadow_only` and `neither` are numbers of events and sum to `events`. `span_us` is the total
    length of the windows.
    """

    windows: int
    events: int
    both: int
    active_only: int
    shadow_only: int
    neither: int
    span_us: int

    @property
    def active_per_day(self) -> float:
        """Return the outliers of the active model per day of these windows."""
        return (self.both + self.active_only) * DAY_US / self.span_us

    @property
    def shadow_per_day(self) -> float:
        """Return the outliers of the shadow model per day of these windows."""
        return (self.both + self.shadow_only) * DAY_US / self.span_us


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A stored model.

    Attributes:
        id: Identifier of the row.
        version: Version within the stream.
        kind: Kind of the model.
        state: `active`, `shadow`, `candidate` or `retired`.
        created_at_us: Time of storing.
        activated_us: First window start of its last activation; None before the first.
        held_out_energy: Mean energy of held-out training events, in nats; None for models of older versions.
        feature_names: The features.
        summary: Figures of the fit.
        shadow_since_us: First window that it scored beside the active model; None if it was no shadow model.
        shadow_threshold: Its threshold as a shadow model.
        shadow_due_us: Event time from which the gate decides; None leaves the decision to a person.
        gate: Last verdict of the gate.
        agreement: Agreement with the active model; None without kept windows of a shadow run.
    """

    id: int
    version: int
    kind: str
    state: str
    created_at_us: int
    activated_us: int | None
    held_out_energy: float | None
    feature_names: tuple[str, ...]
    summary: Mapping[str, Any]
    shadow_since_us: int | None
    shadow_threshold: float | None
    shadow_due_us: int | None
    gate: Mapping[str, Any] | None
    agreement: Agreement | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """Promise and verdicts of one stream over a time.

    Attributes:
        stream_id: The stream.
        promised_per_week: Configured false alarms per week, at the newest tick; None before the first.
        state: State of the calibration at that tick.
        from_us: Start of the time that the stream was judged in.
        until_us: Its end.
        true_alarms: Incidents with the verdict `confirmed`.
        false_alarms: Incidents with the verdict `false_alarm`.
        accepted: Incidents that a person accepted as normal: neither true nor false alarms.
        without_verdict: Incidents without a verdict.
        precision: Share of true alarms among those with one of both verdicts, over the 28 days before the newest tick.
        precision_lower: Lower end of its 95% interval (Clopper and Pearson).
        precision_upper: Upper end.
    """

    stream_id: int
    promised_per_week: float | None
    state: str | None
    from_us: int
    until_us: int
    true_alarms: int
    false_alarms: int
    accepted: int
    without_verdict: int
    precision: float | None
    precision_lower: float | None
    precision_upper: float | None


def read_models(conn: Connection, stream_id: int) -> list[ModelFacts]:
    """Return the models of a stream, newest version first. The artefacts are not read."""
    query = (
        sa.select(
            *(column for column in models.c if column.name not in {"artefact", "checksum", "stream_id"}),
            shadows.c.since_us,
            shadows.c.threshold,
            shadows.c.due_us,
            shadows.c.verdict,
        )
        .select_from(models.outerjoin(shadows, shadows.c.model_id == models.c.id))
        .where(models.c.stream_id == stream_id)
        .order_by(models.c.version.desc())
    )
    rows = conn.execute(query).all()
    agreements = _read_agreements(conn, [row.id for row in rows if row.since_us is not None])
    return [_to_facts(row, agreements.get(row.id)) for row in rows]


def read_ledger(
    conn: Connection, stream_ids: Collection[int], *, kinds: Collection[str], from_us: int, until_us: int
) -> list[LedgerEntry]:
    """Return promise and verdicts of several streams for the incidents opened in (from, until], by stream.

    Args:
        conn: Connection to the database.
        stream_ids: The streams.
        kinds: The kinds of incidents that share the budget of false alarms.
        from_us: Event time; a stream whose first tick is later begins with it.
        until_us: Event time; a stream whose last tick is earlier ends with it.
    """
    counts = _count_verdicts(conn, stream_ids, kinds, from_us, until_us)
    first, last = (_read_ticks(conn, stream_ids, extreme, from_us, until_us) for extreme in (sa.func.min, sa.func.max))
    entries = []
    for stream_id in sorted(stream_ids):
        own, tick = counts.get(stream_id, {}), last.get(stream_id)
        begin_us = first[stream_id].at_us if stream_id in first else until_us
        entries.append(
            LedgerEntry(
                stream_id=stream_id,
                promised_per_week=None if tick is None else tick.promised_per_week,
                state=None if tick is None else tick.state,
                from_us=begin_us,
                until_us=begin_us if tick is None else tick.at_us,
                true_alarms=own.get("confirmed", 0),
                false_alarms=own.get("false_alarm", 0),
                accepted=own.get("accepted", 0),
                without_verdict=own.get(None, 0),
                precision=None if tick is None else tick.precision,
                precision_lower=None if tick is None else tick.precision_lower,
                precision_upper=None if tick is None else tick.precision_upper,
            )
        )
    return entries


def _read_agreements(conn: Connection, model_ids: Collection[int]) -> dict[int, Agreement]:
    both = shadow_windows.c.outliers_of_both
    columns = {
        "events": windows.c.events,
        "active": windows.c.outliers,
        "shadow": shadow_windows.c.outliers,
        "both": both,
        "span_us": windows.c.window_end_us - windows.c.window_start_us,
    }
    query = (
        sa.select(
            shadow_windows.c.model_id,
            sa.func.count().label("windows"),
            *(sa.cast(sa.func.sum(column), sa.BigInteger).label(name) for name, column in columns.items()),
        )
        .join(
            windows,
            (windows.c.stream_id == shadow_windows.c.stream_id)
            & (windows.c.window_start_us == shadow_windows.c.window_start_us),
        )
        # A window of which an older version wrote a part, or that began before the shadow run, cannot be compared.
        .where(shadow_windows.c.model_id.in_(model_ids), both.is_not(None), shadow_windows.c.events == windows.c.events)
        .group_by(shadow_windows.c.model_id)
    )
    return {
        row.model_id: Agreement(
            windows=row.windows,
            events=row.events,
            both=row.both,
            active_only=row.active - row.both,
            shadow_only=row.shadow - row.both,
            neither=row.events - row.active - row.shadow + row.both,
            span_us=row.span_us,
        )
        for row in conn.execute(query)
    }


def _to_facts(row: Any, agreement: Agreement | None) -> ModelFacts:
    summary = json.loads(row.summary or "{}")
    return ModelFacts(
        id=row.id,
        version=row.version,
        kind=row.kind,
        state=row.state,
        created_at_us=row.created_at_us,
        activated_us=row.valid_from_us,
        held_out_energy=summary.get("held_out_energy"),
        feature_names=tuple(json.loads(row.feature_names)),
        summary=summary,
        shadow_since_us=row.since_us,
        shadow_threshold=row.threshold,
        shadow_due_us=row.due_us,
        gate=None if row.verdict is None else json.loads(row.verdict),
        agreement=agreement,
    )


def _count_verdicts(
    conn: Connection, stream_ids: Collection[int], kinds: Collection[str], from_us: int, until_us: int
) -> dict[int, dict[str | None, int]]:
    query = (
        sa.select(incidents.c.stream_id, incidents.c.verdict, sa.func.count().label("n"))
        .where(
            incidents.c.stream_id.in_(stream_ids),
            incidents.c.opened_at_us > from_us,
            incidents.c.opened_at_us <= until_us,
            incidents.c.kind.in_(kinds),
        )
        .group_by(incidents.c.stream_id, incidents.c.verdict)
    )
    found: dict[int, dict[str | None, int]] = {}
    for row in conn.execute(query):
        found.setdefault(row.stream_id, {})[row.verdict] = row.n
    return found


def _read_ticks(
    conn: Connection, stream_ids: Collection[int], extreme: Any, from_us: int, until_us: int
) -> dict[int, sa.Row[Any]]:
    """Return the first or last calibration of each stream in (from, until]: one step along the key for each stream."""
    at_us = (
        sa.select(extreme(calibrations.c.at_us))
        .where(
            calibrations.c.stream_id == streams.c.id,
            calibrations.c.at_us > from_us,
            calibrations.c.at_us <= until_us,
        )
        .scalar_subquery()
    )
    ends = sa.select(streams.c.id, at_us.label("at_us")).where(streams.c.id.in_(stream_ids)).subquery()
    query = sa.select(calibrations).join(
        ends, (calibrations.c.stream_id == ends.c.id) & (calibrations.c.at_us == ends.c.at_us)
    )
    return {row.stream_id: row for row in conn.execute(query)}
