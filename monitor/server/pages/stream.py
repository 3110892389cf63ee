"""The page of a stream: `/streams/NAME`, and the tables of its panels as CSV."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import RedirectResponse, Response

from monitor.server.access.person import Person, Reader
from monitor.server.context import Context, ServerContext
from monitor.server.pages.frames import frame_of
from monitor.server.pages.panels import Panel, PanelTable, read_panel, write_csv
from monitor.server.pages.render import PageFrame, render_page
from monitor.server.pages.stream_charts import read_energy_chart, read_outlier_chart, read_record_chart
from monitor.server.pages.stream_drift import read_features, read_heat_map
from monitor.server.pages.stream_head import read_stream_head
from monitor.server.pages.stream_queries import panel_sql
from monitor.server.pages.stream_view import (
    DEFAULT_RANGE,
    RANGES_US,
    Span,
    StreamView,
    parse_cell,
    parse_zoom,
    shown_span,
    zoom_out,
)
from monitor.server.pages.threshold_trial import read_trial_panel
from monitor.server.problems import ApiError
from storage.queries.stream_series import StreamExtent, find_stream
from storage.queries.streams import read_stream_names

router = APIRouter(tags=["pages"])

_READS: Mapping[str, Callable[..., Any]] = {
    "energy": read_energy_chart,
    "outliers": read_outlier_chart,
    "records": read_record_chart,
    "drift": read_heat_map,
    "features": read_features,
}
_FOLLOW_ZOOM = " ".join(("head", *_READS))


@router.get("/streams")
def show_streams(context: Context, _person: Reader) -> Response:
    """Show the only stream, or the overview of several."""
    with context.reads.read() as connection:
        names = read_stream_names(connection)
    return RedirectResponse(StreamView(stream=names[0]).path if len(names) == 1 else "/", status_code=303)


def read_view(
    name: str,
    range_: Annotated[str, Query(alias="range", max_length=4)] = DEFAULT_RANGE,
    zoom: Annotated[str | None, Query(max_length=64)] = None,
    model: Annotated[int | None, Query(ge=1)] = None,
    horizon: Annotated[int | None, Query(ge=1)] = None,
    cell: Annotated[str | None, Query(max_length=300)] = None,
    percentile: Annotated[float | None, Query(gt=0, lt=100)] = None,
) -> StreamView:
    """Return what an address asks for.

    Raises:
        ApiError: A parameter is not valid (422).
    """
    if range_ not in RANGES_US:
        raise ApiError(422, f"range: {range_!r} is none of {', '.join(RANGES_US)}")
    try:
        return StreamView(
            stream=name,
            range=range_,
            zoom=None if zoom is None else parse_zoom(zoom),
            model=model,
            horizon=horizon,
            cell=None if cell is None else parse_cell(cell),
            percentile=percentile,
        )
    except ValueError as error:
        raise ApiError(422, f"zoom or cell: {error}") from error


View = Annotated[StreamView, Depends(read_view)]


@router.get("/streams/{name}")
def show_stream(
    context: Context,
    person: Reader,
    view: View,
    *,
    panel: Annotated[str | None, Query(max_length=32)] = None,
    run: bool = False,
) -> Response:
    """Show a stream, or one panel of its page."""
    extent, frame, _ = open_stream(context, person, view)
    span = None if extent.last_us is None else shown_span(view, extent.last_us)
    wanted = _READS if panel is None else [name for name in _READS if name == panel]
    panels: dict[str, Panel[Any] | None] = dict.fromkeys(_READS)
    if span is not None:
        panels |= {name: _read(context, name, extent, view, span) for name in wanted}
    tried = None
    if span is not None and panel in {None, "try"}:
        tried = _read_trial(context, extent, view, start=run or panel is not None)
    head = None
    if panel in {None, "head"}:
        head = read_panel("head", partial(read_stream_head, context.reads, view.stream, extent))
    return render_page(
        "stream.html",
        frame,
        view="streams",
        title=view.stream,
        query=view,
        span=span,
        head=head,
        panels=panels,
        tried=tried,
        ranges=[(each, view.href(range=each, zoom=None)) for each in RANGES_US],
        wider=None if span is None else view.href(zoom=zoom_out(span)),
        follow=_FOLLOW_ZOOM,
        only=panel,
    )


@router.get("/streams/{name}/{panel}.csv")
def download_panel(context: Context, person: Reader, view: View, panel: str) -> Response:
    """Return the table of a panel as CSV."""
    if panel not in {*_READS, "try"}:
        raise ApiError(404, f"there is no panel {panel!r}; the panels are {', '.join(_READS)} and try")
    extent, _, _ = open_stream(context, person, view)
    if extent.last_us is None:
        raise ApiError(404, f"stream {view.stream} has no judged windows yet")
    if panel == "try":
        found: Panel[Any] = _read_trial(context, extent, view, start=True)
    else:
        found = _read(context, panel, extent, view, shown_span(view, extent.last_us))
    return csv_response(found, f"{view.stream}-{panel}")


def csv_response(panel: Panel[Any], name: str) -> Response:
    """Return the table of a panel as a file.

    Raises:
        ApiError: The panel could not be read, or its back-test has not ended (503).
    """
    if panel.error is not None:
        raise ApiError(503, panel.error)
    if panel.table is None:
        raise ApiError(503, "the back-test has not ended yet; try again", headers={"Retry-After": "5"})
    return Response(
        write_csv(panel.table),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}.csv"'},
    )


def open_stream(context: ServerContext, person: Person, view: StreamView) -> tuple[StreamExtent, PageFrame, list[str]]:
    """Return the extent of the stream, the frame of its page, and the names of all streams.

    Raises:
        ApiError: The stream does not exist (404).
    """
    with context.reads.read() as connection:
        extent = find_stream(connection, view.stream)
        names = read_stream_names(connection)
        now_us = context.reads.now_us(connection)
    if extent is None:
        raise ApiError(404, f"there is no stream {view.stream!r}; the streams are {', '.join(names) or 'none'}")
    return extent, frame_of(context, person, now_us), names


def _read(context: ServerContext, name: str, extent: StreamExtent, view: StreamView, span: Span) -> Panel[Any]:
    return read_panel(
        name,
        partial(_READS[name], context.reads, extent, view, span),
        sql=panel_sql(view.stream, span, extent.window_us)[name],
        table=table_of,
    )


def _read_trial(context: ServerContext, extent: StreamExtent, view: StreamView, *, start: bool) -> Panel[Any]:
    run = view.href()
    run += ("&" if "?" in run else "?") + "run=true"
    read = partial(read_trial_panel, context, extent, view, start=start, grid=False, run=run)
    return read_panel("try", read, table=table_of)


def table_of(content: Any) -> PanelTable | None:
    """Return the table of the content of a panel."""
    table: PanelTable | None = content.table
    return table
