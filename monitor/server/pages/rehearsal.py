"""A rehearsal of the views before the server is announced, so that the first visitor does not wait for compilations."""

import logging
from collections.abc import Callable, Iterator

from config.errors import OutriderError
from monitor.server.access.person import Person
from monitor.server.context import ServerContext
from monitor.server.pages.incident import show_incident
from monitor.server.pages.incidents import show_incidents
from monitor.server.pages.models import show_models
from monitor.server.pages.overview import show_overview
from monitor.server.pages.render import compile_templates
from monitor.server.pages.stream import show_stream
from monitor.server.pages.stream_view import StreamView
from monitor.server.problems import ApiError
from storage.queries.incident_list import list_recent_incidents
from storage.queries.streams import read_stream_names

log = logging.getLogger(__name__)

_REHEARSER = Person(name="rehearsal", scopes=frozenset({"read", "act"}))
"""A person that sees all buttons; nothing is written."""


def rehearse(context: ServerContext) -> None:
    """Compile the templates, and show each view once to nobody.

    That compiles the queries, and reads the look-back of the incident that is looked at first. Without a database, or
    before its first stream, only the templates are compiled. An error is shown by the view, not here.
    """
    compile_templates()
    try:
        for show in _list_views(context):
            show()
    except (OutriderError, ApiError) as error:
        log.debug("The views were not rehearsed: %s.", error, extra={"action": "server"})
    except Exception:
        log.exception("The views could not be rehearsed.", extra={"action": "server"})


def _list_views(context: ServerContext) -> Iterator[Callable[[], object]]:
    with context.reads.read() as connection:
        names = read_stream_names(connection)
        recent = list_recent_incidents(connection, limit=1)
    yield lambda: show_overview(context, _REHEARSER)
    yield lambda: show_incidents(context, _REHEARSER)
    for each in recent:
        yield lambda: show_incident(each.id, context, _REHEARSER)  # noqa: B023 - called before the next step
    for name in [recent[0].stream] if recent else names[:1]:
        view = StreamView(stream=name)
        yield lambda: show_stream(context, _REHEARSER, view)  # noqa: B023 - as above
        yield lambda: show_models(context, _REHEARSER, view)  # noqa: B023 - as above
