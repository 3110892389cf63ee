"""`POST /login` and `POST /logout`: a session of the page for the person with a token."""

import json
from urllib.parse import quote

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from monitor.server.access.bodies import read_form
from monitor.server.access.person import check_token
from monitor.server.access.sessions import SESSION_LENGTH_S, cookie_name, issue_session
from monitor.server.context import Context, ServerContext
from monitor.server.problems import ApiError, is_for_page

router = APIRouter()

_HOME = "/"


@router.post("/login")
async def login(request: Request, context: Context) -> Response:
    """Start a session: a form or a JSON object with `token`, and for a form optionally `next`, a path of the page.

    A browser is led to `next`, or back to the form after a wrong token; any other client gets 204.
    """
    fields = await _read_fields(request)
    wants_page = is_for_page(request)
    try:
        person = await run_in_threadpool(check_token, request, context, fields.get("token", ""))
    except ApiError as error:
        if not wants_page:
            raise
        failed = "wait" if error.status_code == 429 else "wrong"
        return RedirectResponse(f"/login?failed={failed}&next={quote(_own_path(fields), safe='/')}", status_code=303)
    answer = RedirectResponse(_own_path(fields), status_code=303) if wants_page else Response(status_code=204)
    set_cookie(answer, context, issue_session(context.tokens, person.name, context.clock_s()))
    return answer


@router.post("/logout")
async def logout(request: Request, context: Context) -> Response:
    """End the session in this browser."""
    answer = RedirectResponse("/login", status_code=303) if is_for_page(request) else Response(status_code=204)
    set_cookie(answer, context, "")
    return answer


def set_cookie(answer: Response, context: ServerContext, value: str) -> None:
    """Set the cookie of the session; an empty value deletes it."""
    answer.set_cookie(
        cookie_name(is_https=context.is_https),
        value,
        max_age=SESSION_LENGTH_S if value else 0,
        path="/",
        secure=context.is_https,
        httponly=True,
        samesite="lax",
    )


async def _read_fields(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").startswith("application/json"):
        try:
            body = json.loads(await request.body())
        except ValueError:
            body = None
        if not isinstance(body, dict) or not isinstance(body.get("token"), str):
            raise ApiError(400, 'the body must be a JSON object with a token: {"token": "..."}')
        return {"token": body["token"]}
    return await read_form(request)


def _own_path(fields: dict[str, str]) -> str:
    """Return the path of this server that the form asks for; never the address of another server."""
    path = fields.get("next", _HOME)
    is_own = path.startswith("/") and path[1:2] not in {"/", "\\"} and path.isprintable()
    return path if is_own else _HOME
