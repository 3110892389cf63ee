"""Forms of the page, each with a token that another site cannot know."""

from starlette.requests import Request

from monitor.server.access.bodies import read_form
from monitor.server.access.person import Person
from monitor.server.access.sessions import form_token, is_form_token
from monitor.server.context import ServerContext
from monitor.server.problems import ApiError

FORM_FIELD = "csrf"


def form_token_of(context: ServerContext, person: Person) -> str:
    """Return the value of the hidden field `csrf` of each form."""
    return form_token(context.tokens, person.cookie, person.name)


async def read_own_form(request: Request, context: ServerContext, person: Person) -> dict[str, str]:
    """Return the fields of a form that this server made for the person.

    Raises:
        ApiError: The body is not a form (400, 415), or its token is missing or wrong (403).
    """
    fields = await read_form(request)
    if not is_form_token(context.tokens, fields.pop(FORM_FIELD, ""), person.cookie, person.name):
        raise ApiError(403, "the form is not valid any more; open the page again and repeat the action")
    return fields
