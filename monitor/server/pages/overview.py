"""The overview at `/`: is all well? Streams worst first, recent incidents, the promise, and the proofs."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, Response

from config.time_format import DAY_US, HOUR_US
from monitor.health.stream_health import StreamHealth, judge_streams
from monitor.server.access.person import Person, Reader
from monitor.server.context import Context, ServerContext
from monitor.server.pages.bars import BAR_US, BARS, Bar, fill_bars
from monitor.server.pages.formats import duration
from monitor.server.pages.frames import frame_of
from monitor.server.pages.incident_decide import write_basis
from monitor.server.pages.incident_rows import IncidentRow, build_incident_row, tabulate_incidents
from monitor.server.pages.overview_rows import (
    Proof,
    StreamRow,
    build_hours,
    build_proofs,
    build_stream_row,
    sort_streams,
    tabulate_bars,
    tabulate_spans,
)
from monitor.server.pages.overview_sentence import OverviewSentence, say_overview
from monitor.server.pages.panels import Panel, PanelTable, read_panel, write_csv
from monitor.server.pages.promise import build_promise
from monitor.server.pages.render import render_page
from monitor.server.problems import ApiError
from storage.control.verbs import VerbStore
from storage.database.engine import Database
from storage.queries.health import read_health_facts
from storage.queries.incident_list import ListedIncident, count_open_incidents, list_recent_incidents, read_last_changes
from storage.queries.promises import count_messages, read_promises
from storage.queries.rollups import IncidentMark, read_bars, read_incident_marks
from storage.queries.status import load_stream_ids

router = APIRouter(tags=["pages"])

MAX_INCIDENTS = 8
_BEHIND_US = HOUR_US
"""A history that ends longer ago than this is shown up to its end, not up to the present."""
_SQL = {
    "streams": "SELECT stream, window_start, events, outliers, expected_outliers, p_value FROM window_history\n"
    "WHERE window_start >= :from AND window_start < :until ORDER BY stream, window_start",
    "incidents": "SELECT id, stream, kind, severity, status, opened_at, summary, acknowledged_by, verdict\n"
    "FROM incident_history ORDER BY status, opened_at DESC LIMIT 8",
    "facts": "SELECT stream, promised_per_week, true_alarms, false_alarms, without_verdict, at\n"
    "FROM calibration_history ORDER BY at DESC;\nSELECT state, count(*) FROM notification_history GROUP BY state",
    "proof": "SELECT stream, component, state, since, reason FROM health ORDER BY stream, component",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """The table of streams with the times below its bars; `is_past` if the newest event is old."""

    rows: Sequence[StreamRow]
    hours: Sequence[str]
    until_us: int
    is_past: bool


@dataclass
class OverviewReader:
    """Reads the panels of the overview; facts that several panels need are read once."""

    context: ServerContext
    is_export: bool = False
    """Whether the tables are for CSV, with every bar."""

    @property
    def _db(self) -> Database:
        return self.context.reads

    @cached_property
    def health(self) -> Mapping[str, StreamHealth]:
        """The health of the configured streams and of those that are stored."""
        stored = read_health_facts(self._db)
        absent = [name for name in self.context.settings.streams if name not in stored.streams]
        found = judge_streams(stored)
        return {**found, **judge_streams(read_health_facts(self._db, absent))} if absent else found

    @cached_property
    def recent(self) -> Sequence[ListedIncident]:
        """The open and the newest incidents."""
        with self._db.read() as connection:
            return list_recent_incidents(connection, limit=MAX_INCIDENTS)

    @property
    def now_us(self) -> int | None:
        """The time of the health on the database's clock; None if it could not be read."""
        panel = read_panel("now", lambda: next(iter(self.health.values())).now_us if self.health else self._db.now_us())
        return panel.content

    def read(self, wanted: str | None) -> dict[str, Panel[Any]]:
        """Return the panels in their order, or only the wanted one."""
        sources: Mapping[str, tuple[Callable[[], Any], Callable[[Any], PanelTable | None] | None]] = {
            "sentence": (self._read_sentence, None),
            "facts": (self._read_facts, None),
            "streams": (self._read_streams, lambda _: self._tabulate_streams()),
            "incidents": (self._read_incidents, lambda _: tabulate_incidents(self.recent)),
            "proof": (self._read_proof, None),
        }
        return {
            name: read_panel(name, read, sql=_SQL.get(name), table=table)
            for name, (read, table) in sources.items()
            if wanted in (None, name)
        }

    def _read_sentence(self) -> OverviewSentence:
        return say_overview(sort_streams(self.health))

    def _read_facts(self) -> dict[str, Any]:
        health = self.health
        now_us = self._now()
        with self._db.read() as connection:
            counts = count_open_incidents(connection)
            messages = count_messages(connection, since_us=now_us - DAY_US)
            promise = build_promise(read_promises(connection))
        ages = [each.proof.last_commit_age_s for each in health.values() if each.proof.last_commit_age_s is not None]
        return {
            "counts": counts,
            "oldest": None if counts.oldest_us is None else duration(max(now_us - counts.oldest_us, 0)),
            "messages": messages,
            "newest_commit": None if not ages else duration(min(ages) * 1e6),
            "slowest_commit": None if not ages else duration(max(ages) * 1e6),
            "promise": promise,
        }

    @cached_property
    def _bars(self) -> tuple[int, bool, dict[str, list[Bar]], dict[str, list[Any]]]:
        """The start of the bars, whether they end in the past, and the bars and roll-ups by stream."""
        now_us = self._now()
        last_us = max((each.proof.last_event_us or 0 for each in self.health.values()), default=0)
        is_past = 0 < last_us < now_us - _BEHIND_US
        until_us = -(-(last_us if is_past else now_us) // BAR_US) * BAR_US
        from_us = until_us - BARS * BAR_US
        ids = load_stream_ids(self._db)
        with self._db.read() as connection:
            rollups = read_bars(connection, list(ids.values()), from_us=from_us, until_us=until_us)
            marks = read_incident_marks(connection, list(ids.values()), from_us=from_us, until_us=until_us)
        by_name: dict[str, list[Any]] = {
            name: rollups.get(ids[name], []) if name in ids else [] for name in self.health
        }
        marks_of: dict[int | None, list[IncidentMark]] = defaultdict(list)
        for mark in marks:
            marks_of[mark.stream_id].append(mark)
        bars = {name: fill_bars(rows, marks_of[ids.get(name)], from_us) for name, rows in by_name.items()}
        return from_us, is_past, bars, by_name

    def _read_streams(self) -> Streams:
        from_us, is_past, bars, rollups = self._bars
        until_us = from_us + BARS * BAR_US
        rows = [
            build_stream_row(each, bars[each.stream], rollups[each.stream], until_us)
            for each in sort_streams(self.health)
        ]
        return Streams(rows=rows, hours=build_hours(from_us), until_us=until_us, is_past=is_past)

    def _tabulate_streams(self) -> PanelTable:
        from_us, _, bars, _ = self._bars
        return tabulate_bars(bars, from_us) if self.is_export else tabulate_spans(bars, from_us)

    def _read_incidents(self) -> list[IncidentRow]:
        store, now_us = VerbStore(self._db), self._now()
        rows = []
        for each in self.recent:
            basis = None
            if each.status == "open" and not each.is_acknowledged:
                facts = store.facts(each.id)
                basis = None if facts is None else write_basis(facts.basis)
            rows.append(build_incident_row(each, now_us, basis))
        return rows

    def _read_proof(self) -> list[Proof]:
        return build_proofs(list(self.health.values()))

    def _now(self) -> int:
        now_us = self.now_us
        return self._db.now_us() if now_us is None else now_us


@router.get("/")
def show_overview(
    context: Context, person: Reader, panel: Annotated[str | None, Query(max_length=40)] = None
) -> Response:
    """Show whether all is well; with `panel` only that panel, for live updates.

    Viewers share a page for a second at most, and until live viewers are told a change or an incident changes.
    """
    last_act = read_panel("acts", lambda: _read_last_act(context)).content
    key = ("overview", panel, frame_of(context, person, None), context.live.changes, last_act)
    body = context.shared_pages.get(key, lambda: _render_overview(context, person, panel))
    return HTMLResponse(body, headers={"Cache-Control": "no-store"})


def _read_last_act(context: ServerContext) -> tuple[int, int]:
    with context.reads.read() as connection:
        return read_last_changes(connection)


def _render_overview(context: ServerContext, person: Person, panel: str | None) -> bytes:
    reader = OverviewReader(context)
    panels = reader.read(panel)
    page = render_page(
        "overview.html",
        frame_of(context, person, reader.now_us),
        view="overview",
        title="Overview",
        panels=panels,
        now_us=reader.now_us or 0,
    )
    return bytes(page.body)


@router.get("/overview/{panel}.csv")
def export_overview(panel: str, context: Context, _person: Reader) -> Response:
    """Return the table of a panel as CSV."""
    found = OverviewReader(context, is_export=True).read(panel).get(panel)
    if found is None or found.table is None:
        raise ApiError(404, f"the overview has no table {panel}")
    headers = {"Content-Disposition": f'attachment; filename="overview-{panel}.csv"'}
    return Response(write_csv(found.table), media_type="text/csv; charset=utf-8", headers=headers)
