"""The list of incidents at `/incidents`, by filters and in pages that new incidents do not move."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import Response

from monitor.incidents.lifecycle import Kind
from monitor.server.access.person import Reader
from monitor.server.context import Context, ServerContext
from monitor.server.pages.formats import words
from monitor.server.pages.frames import frame_of
from monitor.server.pages.incident_decide import write_basis
from monitor.server.pages.incident_rows import IncidentRow, build_incident_row, tabulate_incidents
from monitor.server.pages.panels import Panel, read_panel, write_csv
from monitor.server.pages.render import render_page
from monitor.server.problems import ApiError
from storage.control.verbs import VerbStore
from storage.queries.incident_list import IncidentFilter, ListedIncident, list_incidents
from storage.queries.status import load_stream_ids

router = APIRouter(tags=["pages"])

PAGE_SIZE = 50
_SQL = (
    "SELECT id, stream, kind, severity, status, opened_at, resolved_at, summary, acknowledged_by, verdict\n"
    "FROM incident_history{where}\nORDER BY opened_at DESC LIMIT 50"
)
Text = Annotated[str | None, Query(max_length=120)]


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentList:
    """A page of the list; `older` is the address of the next one, or None."""

    rows: Sequence[IncidentRow]
    older: str | None


@router.get("/incidents")
def show_incidents(
    context: Context,
    person: Reader,
    stream: Text = None,
    kind: Text = None,
    status: Text = None,
    before: Text = None,
    panel: Text = None,
) -> Response:
    """Show incidents, the newest first."""
    wanted = _parse(stream, kind, status, before)
    now_us = read_panel("now", lambda: _read_now(context)).content
    names = read_panel("names", lambda: list(load_stream_ids(context.reads))).content or []
    return render_page(
        "incidents.html",
        frame_of(context, person, now_us),
        view="incidents",
        title="Incidents",
        panels={"incidents": _read(context, wanted, now_us or 0)} if panel in (None, "incidents") else {},
        wanted=wanted,
        streams=names,
        kinds=[(each.value, words(each.value)) for each in Kind],
        now_us=now_us or 0,
        csv=f"/incidents.csv?{_query(wanted, wanted.before)}",
    )


@router.get("/incidents.csv")
def export_incidents(
    context: Context, _person: Reader, stream: Text = None, kind: Text = None, status: Text = None, before: Text = None
) -> Response:
    """Return a page of the list as CSV."""
    with context.reads.read() as connection:
        found = list_incidents(connection, _parse(stream, kind, status, before), limit=PAGE_SIZE)
    headers = {"Content-Disposition": 'attachment; filename="incidents.csv"'}
    return Response(write_csv(tabulate_incidents(found)), media_type="text/csv; charset=utf-8", headers=headers)


def _read_now(context: ServerContext) -> int:
    return context.reads.now_us()


def _read(context: ServerContext, wanted: IncidentFilter, now_us: int) -> Panel[IncidentList]:
    found: list[ListedIncident] = []

    def read() -> IncidentList:
        with context.reads.read() as connection:
            found.extend(list_incidents(connection, wanted, limit=PAGE_SIZE + 1))
        shown = found[:PAGE_SIZE]
        del found[PAGE_SIZE:]
        last = shown[-1] if shown else None
        is_last = last is None or len(shown) < PAGE_SIZE
        older = None if is_last or last is None else f"/incidents?{_query(wanted, (last.opened_at_us, last.id))}"
        return IncidentList(
            rows=[build_incident_row(each, now_us, _basis(context, each)) for each in shown], older=older
        )

    return read_panel("incidents", read, sql=_write_sql(wanted), table=lambda _: tabulate_incidents(found))


def _basis(context: ServerContext, each: ListedIncident) -> str | None:
    if each.status != "open" or each.is_acknowledged:
        return None
    facts = VerbStore(context.reads).facts(each.id)
    return None if facts is None else write_basis(facts.basis)


def _parse(stream: str | None, kind: str | None, status: str | None, before: str | None) -> IncidentFilter:
    after = None
    if before:
        try:
            at_us, _, last_id = before.partition("-")
            after = (int(at_us), int(last_id))
        except ValueError:
            raise ApiError(422, f"before: {before!r} is not a place in the list") from None
    return IncidentFilter(stream=stream or None, kind=kind or None, status=status or None, before=after)


def _query(wanted: IncidentFilter, before: tuple[int, int] | None) -> str:
    values = {"stream": wanted.stream, "kind": wanted.kind, "status": wanted.status}
    place = {} if before is None else {"before": f"{before[0]}-{before[1]}"}
    return urlencode({name: value for name, value in values.items() if value} | place)


def _write_sql(wanted: IncidentFilter) -> str:
    values = {"stream": wanted.stream, "kind": wanted.kind, "status": wanted.status}
    conditions = [
        f"{name} = '{text}'" for name, value in values.items() if value and (text := value.replace("'", "''"))
    ]
    return _SQL.format(where=f"\nWHERE {' AND '.join(conditions)}" if conditions else "")
