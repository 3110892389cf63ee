"""The frame of a page for the person of a request."""

from monitor.server.access.forms import form_token_of
from monitor.server.access.person import Person
from monitor.server.context import ServerContext
from monitor.server.pages.render import PageFrame


def frame_of(context: ServerContext, person: Person, now_us: int | None) -> PageFrame:
    """Return the values that every page has.

    Args:
        context: The shared values of all requests.
        person: The person of the request.
        now_us: The time on the database's clock; None if the database cannot be read.
    """
    return PageFrame(
        now_us=now_us,
        csrf=form_token_of(context, person),
        who=person.name,
        is_logged_in=bool(person.cookie),
        can_act=person.may("act"),
    )
