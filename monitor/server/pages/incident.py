"""The page of an incident: `/incidents/{id}`, its tables as CSV, and the forms of its verbs."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from config.errors import ConfigError
from monitor.control_plane.verbs import BasisChanged
from monitor.daemon.verbs import apply_configured_verb
from monitor.incidents.verb_plan import VerbRequest
from monitor.incidents.verbs import Verb, VerbRefused
from monitor.server.access.forms import read_own_form
from monitor.server.access.person import Actor, Person, Reader
from monitor.server.context import Context, ServerContext
from monitor.server.pages.frames import frame_of
from monitor.server.pages.incident_answer import title_of
from monitor.server.pages.incident_decide import (
    LABELS,
    REASONS,
    describe_basis,
    read_basis,
    write_basis,
)
from monitor.server.pages.incident_facts import IncidentFacts, NoSuchIncident, load_incident_facts
from monitor.server.pages.incident_head import describe_head
from monitor.server.pages.incident_page import PageReader
from monitor.server.pages.panels import write_csv
from monitor.server.pages.render import render_page
from monitor.server.problems import ApiError

router = APIRouter(tags=["pages"])
_MAX_NOTE = 500
_ORIGINS = {"overview": "/#h-incidents", "incidents": "/incidents"}
"""The list that a verb leads back to."""


@router.get("/incidents/{incident_id}")
def show_incident(
    incident_id: int, context: Context, person: Reader, panel: Annotated[str | None, Query(max_length=40)] = None
) -> Response:
    """Show why an incident opened, and the verbs on it; with `panel` only that panel, for live updates."""
    return _render(context, person, incident_id, wanted=panel)


@router.get("/incidents/{incident_id}/{panel}.csv")
def export_panel(incident_id: int, panel: str, context: Context, person: Reader) -> Response:
    """Return the table of a panel as CSV."""
    found = _reader(context, person, _load(context, incident_id)).read(panel).get(panel)
    if found is None or found.table is None:
        raise ApiError(404, f"incident {incident_id} has no table {panel}")
    headers = {"Content-Disposition": f'attachment; filename="incident-{incident_id}-{panel}.csv"'}
    return Response(write_csv(found.table), media_type="text/csv; charset=utf-8", headers=headers)


@router.post("/incidents/{incident_id}/{verb}")
async def act_on_incident(incident_id: int, verb: str, request: Request, context: Context, person: Actor) -> Response:
    """Apply a verb; a changed basis is answered by a page with a new preview (412)."""
    fields = await read_own_form(request, context, person)
    return await run_in_threadpool(_act, context, person, incident_id, verb, fields)


def _act(context: ServerContext, person: Person, incident_id: int, verb: str, fields: dict[str, str]) -> Response:
    if verb not in [each.value for each in LABELS]:
        raise ApiError(404, f"there is no verb {verb}")
    facts = _load(context, incident_id)
    note = " · ".join(part for part in (fields.get("reason", ""), fields.get("note", "")) if part.strip())[:_MAX_NOTE]
    key = fields.get("key") if verb == Verb.ACCEPT else None
    request = VerbRequest(verb=Verb(verb), who=person.name, note=note or None, key=key or None)
    try:
        basis = read_basis(fields.get("basis", ""))
        apply_configured_verb(context.writes, context.settings, facts.verb_facts, request, basis)
    except BasisChanged:
        refused = (
            "Nothing was changed: the calibration has changed since you opened the page. Below is the new preview."
        )
        return _render(context, person, incident_id, refused=refused, status=412)
    except VerbRefused as error:
        return _render(context, person, incident_id, refused=f"Nothing was changed: {error}.", status=409)
    except ConfigError as error:
        return _render(context, person, incident_id, refused=f"Nothing was changed: {error}.", status=400)
    target = _ORIGINS.get(fields.get("from", ""), f"/incidents/{incident_id}#h-decide")
    return RedirectResponse(target, status_code=303)


def _render(
    context: ServerContext,
    person: Person,
    incident_id: int,
    *,
    wanted: str | None = None,
    refused: str | None = None,
    status: int = 200,
) -> Response:
    facts = _load(context, incident_id)
    panels = _reader(context, person, facts).read(wanted)
    return render_page(
        "incident.html",
        frame_of(context, person, facts.now_us),
        view="incidents",
        title=f"Incident {incident_id}: {title_of(facts.report)}",
        status=status,
        **_values(facts, panels, refused),
    )


def _values(facts: IncidentFacts, panels: dict[str, Any], refused: str | None) -> dict[str, Any]:
    basis = facts.verb_facts.basis
    return {
        "report": facts.report,
        "head": describe_head(facts),
        "panels": panels,
        "refused": refused,
        "basis": write_basis(basis),
        "basis_words": describe_basis(basis, facts.now_us),
        "reasons": REASONS,
        "now_us": facts.now_us,
        "path": f"/incidents/{facts.report.id}",
    }


def _load(context: ServerContext, incident_id: int) -> IncidentFacts:
    try:
        return load_incident_facts(context.reads, incident_id, context.attributions)
    except NoSuchIncident as error:
        raise ApiError(404, str(error)) from None


def _reader(context: ServerContext, person: Person, facts: IncidentFacts) -> PageReader:
    return PageReader(
        facts=facts,
        settings=context.settings,
        previews=context.previews,
        look_backs=context.look_backs,
        who=person.name,
    )
