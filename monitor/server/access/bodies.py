"""A limit of the size of request bodies, and the reading of forms."""

from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.server.problems import ApiError, problem_response

MAX_BODY_SIZE_BYTES = 64 * 1024
_FORM_TYPE = "application/x-www-form-urlencoded"
_MAX_FIELDS = 50
_TOO_LARGE = f"the body is larger than {MAX_BODY_SIZE_BYTES // 1024} KiB"


class BodyLimit:
    """ASGI middleware that answers 413 for a body that is too large.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with a bounded body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared[:12]) > MAX_BODY_SIZE_BYTES:
            await problem_response(HTTPConnection(scope), 413, _TOO_LARGE)(scope, receive, send)
            return
        size_bytes = 0

        async def receive_bounded() -> Message:
            nonlocal size_bytes
            message = await receive()
            size_bytes += len(message.get("body", b""))
            if size_bytes > MAX_BODY_SIZE_BYTES:
                raise ApiError(413, _TOO_LARGE)
            return message

        await self._app(scope, receive_bounded, send)


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form; of a field that is given twice, the last.

    Raises:
        ApiError: The body is not a form.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM_TYPE:
        raise ApiError(415, f"the content type must be {_FORM_TYPE}")
    try:
        text = (await request.body()).decode()
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"))
    except ValueError:
        raise ApiError(400, "the body is not a form") from None
