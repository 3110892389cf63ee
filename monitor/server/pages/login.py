"""The form of the login at `/login`; `monitor.server.access.login` answers it."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from monitor.server.pages.render import PageFrame, render_page

router = APIRouter(tags=["pages"])

_FAILURES = {
    "wrong": "The token is wrong. Use one of the tokens of server.tokens.",
    "wait": "Too many wrong tokens came from this address. Wait a minute, then try again.",
}


@router.get("/login")
def show_login(
    failed: Annotated[str, Query(max_length=20)] = "",
    target: Annotated[str, Query(alias="next", max_length=2000)] = "/",
) -> Response:
    """Show the form of the login."""
    return render_page(
        "login.html", PageFrame(), view="login", title="Log in", failure=_FAILURES.get(failed), target=target
    )
