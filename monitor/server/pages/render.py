"""Rendering of pages: the Jinja environment, and the values that every page has."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import jinja2
from fastapi.responses import HTMLResponse

from monitor.server.pages import formats, icons

_FOLDER = Path(__file__).parent.parent
_FILTERS = (
    "number",
    "significant",
    "share",
    "probability",
    "duration",
    "age",
    "clock",
    "iso",
    "words",
    "time_tag",
    "shorten_times",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFrame:
    """The values that every page has.

    Attributes:
        now_us: The time on the database's clock, for "as of"; None if the database cannot be read.
        csrf: The token of the forms on the page.
        who: The name of the person.
        is_logged_in: Whether the person has a session, which can be ended.
        can_act: Whether the person may apply verbs.
        streams: The names of the streams, for the navigation.
    """

    now_us: int | None = None
    csrf: str = ""
    who: str = ""
    is_logged_in: bool = False
    can_act: bool = True
    streams: Sequence[str] = ()


def render_page(
    template: str, frame: PageFrame, *, view: str, title: str, status: int = 200, **values: Any
) -> HTMLResponse:
    """Return a page.

    Args:
        template: The name of its template.
        frame: The values that every page has.
        view: The view in the navigation: overview, streams, incidents or models; or another word.
        title: The title of the document.
        status: The HTTP status.
        values: The values of the template.
    """
    body = _environment().get_template(template).render(frame=frame, view=view, title=title, **values)
    return HTMLResponse(body, status_code=status, headers={"Cache-Control": "no-store"})


def compile_templates() -> None:
    """Compile all templates, which the first view would do otherwise."""
    for name in _environment().list_templates(extensions=["html"]):
        _environment().get_template(name)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update({name: getattr(formats, name) for name in _FILTERS})
    environment.globals.update(icon=icons.icon, state=icons.state, key=icons.key, asset=_asset_url)
    return environment


@cache
def _asset_url(name: str) -> str:
    """Return the address of a static file; it names the content, so that browsers keep it until it changes."""
    content = (_FOLDER / "static" / name).read_bytes()
    return f"/static/{name}?{sha256(content).hexdigest()[:12]}"
