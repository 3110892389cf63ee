"""The page of the models and thresholds of a stream: `/streams/NAME/models`, and the tables of its panels as CSV."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response

from config.errors import ConfigError, ModelError
from config.settings import Settings
from monitor.daemon.model_changes import promote_version, roll_back
from monitor.server.access.forms import read_own_form
from monitor.server.access.person import Person, Promoter, Reader
from monitor.server.context import Context, ServerContext
from monitor.server.pages.model_sides import Sides, build_sides
from monitor.server.pages.panels import Panel, read_panel
from monitor.server.pages.promise_ledger import read_promise_ledger
from monitor.server.pages.render import render_page
from monitor.server.pages.stream import View, csv_response, open_stream, table_of
from monitor.server.pages.stream_queries import models_sql
from monitor.server.pages.stream_view import RANGES_US, StreamView, shown_span, zoom_out
from monitor.server.pages.threshold_history import read_threshold_chart
from monitor.server.pages.threshold_trial import read_trial_panel
from monitor.server.problems import ApiError
from storage.control.models import ModelRecord
from storage.database.engine import Database
from storage.queries.model_facts import read_models
from storage.queries.stream_series import StreamExtent, read_threshold_steps
from storage.queries.streams import read_stream_names

router = APIRouter(tags=["pages"])

_PANELS = ("side", "gate", "grid", "thresholds", "ledger")
_RANGES = ("24h", "7d", "28d")


@router.get("/models")
def show_models_of_first_stream(context: Context, _person: Reader) -> Response:
    """Show the models of the first stream; its page names the others."""
    with context.reads.read() as connection:
        names = read_stream_names(connection)
    return RedirectResponse(StreamView(stream=names[0], page="/models").path if names else "/", status_code=303)


@router.get("/streams/{name}/models")
def show_models(
    context: Context,
    person: Reader,
    view: View,
    *,
    panel: Annotated[str | None, Query(max_length=32)] = None,
    run: bool = False,
) -> Response:
    """Show the models of a stream, or one panel of the page."""
    return _render(context, person, replace(view, page="/models"), panel=panel, run=run)


@router.post("/streams/{name}/models/rollback")
async def roll_back_model(name: str, request: Request, context: Context, person: Promoter) -> Response:
    """Make the model that was active before active again."""
    await read_own_form(request, context, person)
    return await run_in_threadpool(_change, context, person, name, partial(roll_back, context.writes))


@router.post("/streams/{name}/models/{version}/promote")
async def promote_model(name: str, version: int, request: Request, context: Context, person: Promoter) -> Response:
    """Make a model active, if its gate holds."""
    await read_own_form(request, context, person)
    change = partial(_promote, context.writes, version=version)
    return await run_in_threadpool(_change, context, person, name, change)


def _promote(db: Database, settings: Settings, stream: str, *, version: int) -> ModelRecord:
    return promote_version(db, settings, stream, version)


def _change(
    context: ServerContext, person: Person, name: str, change: Callable[[Settings, str], ModelRecord]
) -> Response:
    """Change the active model and show the page; a refused change says why (409)."""
    view = StreamView(stream=name, page="/models")
    open_stream(context, person, view)
    if name not in context.settings.streams:
        raise ApiError(409, f"stream {name} is not in the configuration of this server; add it to change its models")
    try:
        change(context.settings, name)
    except (ConfigError, ModelError) as error:
        return _render(context, person, view, refused=str(error), status=409)
    return RedirectResponse(f"{view.path}#h-gate", status_code=303)


def _render(
    context: ServerContext,
    person: Person,
    view: StreamView,
    *,
    panel: str | None = None,
    run: bool = False,
    refused: str | None = None,
    status: int = 200,
) -> Response:
    extent, frame, streams = open_stream(context, person, view)
    wanted = _PANELS if panel is None else [name for name in _PANELS if name == panel]
    start_trial = run or panel is not None
    panels: dict[str, Panel[Any] | None] = dict.fromkeys(_PANELS)
    panels |= {name: _read(context, name, extent, view, start_trial=start_trial) for name in wanted}
    span = None if extent.last_us is None else shown_span(view, extent.last_us)
    return render_page(
        "models.html",
        frame,
        view="models",
        title=f"Models of {view.stream}",
        query=view,
        extent=extent,
        streams=streams,
        panels=panels,
        ranges=[(each, view.href(range=each, zoom=None)) for each in RANGES_US if each in _RANGES],
        wider=None if span is None else view.href(zoom=zoom_out(span)),
        follow="thresholds",
        only=panel,
        refused=refused,
        may_promote=person.may("promote"),
        status=status,
    )


@router.get("/streams/{name}/models/{panel}.csv")
def download_models_panel(context: Context, person: Reader, view: View, panel: str) -> Response:
    """Return the table of a panel as CSV."""
    if panel not in _PANELS:
        raise ApiError(404, f"there is no panel {panel!r}; the panels are {', '.join(_PANELS)}")
    view = replace(view, page="/models")
    extent, _, _ = open_stream(context, person, view)
    return csv_response(_read(context, panel, extent, view, start_trial=True), f"{view.stream}-{panel}")


def _read(
    context: ServerContext, name: str, extent: StreamExtent, view: StreamView, *, start_trial: bool
) -> Panel[Any]:
    db = context.reads
    last_us = extent.last_us or 0
    span = shown_span(view, last_us)
    run = view.href()
    run += ("&" if "?" in run else "?") + "run=true"
    reads: Mapping[str, Callable[[], Any]] = {
        "side": partial(_read_sides, context, extent, view.stream),
        "gate": partial(_read_sides, context, extent, view.stream),
        "grid": partial(read_trial_panel, context, extent, view, start=start_trial, grid=True, run=run),
        "thresholds": partial(read_threshold_chart, db, extent, view, span),
        "ledger": partial(read_promise_ledger, db),
    }
    return read_panel(name, reads[name], sql=models_sql(view.stream, span).get(name), table=table_of)


def _read_sides(context: ServerContext, extent: StreamExtent, stream: str) -> Sides:
    last_us = extent.last_us or 0
    with context.reads.read() as conn:
        models = read_models(conn, extent.stream_id)
        steps = read_threshold_steps(conn, extent.stream_id, from_us=last_us, until_us=last_us)
    return build_sides(stream, models, steps[-1] if steps else None)
