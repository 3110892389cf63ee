"""Errors: `application/problem+json` (RFC 9457) for programs and the API, a page for a browser elsewhere."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from config.errors import ConfigError, OutriderError, SchemaMismatch, StorageUnavailable

log = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"
_RETRY_AFTER_S = 2


class InvalidPart(BaseModel):
    """A part of a request that is not valid."""

    where: str = Field(description="The parameter, header or field of the body, dotted.")
    message: str = Field(description="The reason.")


class Problem(BaseModel):
    """An error of the API (RFC 9457)."""

    type: str = Field(default="about:blank", description="Always about:blank: the status says the kind.")
    title: str = Field(description="The name of the status.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="The problem, its place and a remedy.")
    errors: list[InvalidPart] | None = Field(default=None, description="The invalid parts of the request.")


class ApiError(HTTPException):
    """An error with an HTTP status, answered as a problem.

    Args:
        status: The HTTP status.
        detail: The problem, its place and a remedy.
        headers: Additional headers of the answer.
        extra: Additional members of the problem.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, detail, headers=dict(headers or {}))
        self.extra = dict(extra or {})


def is_for_page(connection: HTTPConnection) -> bool:
    """Return whether a person with a browser gets the answer: outside the API, and HTML is accepted."""
    # The address as an object would contain the header Host, which the client chooses.
    is_api = connection.scope["path"].startswith("/api/")
    return not is_api and "text/html" in connection.headers.get("accept", "")


def problem_response(
    connection: HTTPConnection,
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Response:
    """Return the answer of an error: the page `show_error` of the application, or a problem.

    Args:
        connection: The request.
        status: The HTTP status.
        detail: The problem, its place and a remedy.
        headers: Additional headers of the answer.
        extra: Additional members of the problem.
    """
    if is_for_page(connection):
        answer: Response = connection.app.state.show_error(connection, status, detail, headers=headers)
        return answer
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    body = problem.model_dump(exclude_none=True) | dict(extra or {})
    return JSONResponse(body, status_code=status, headers=dict(headers or {}), media_type=PROBLEM_TYPE)


def _lead_to_login(request: Request) -> Response:
    """Lead a browser to the login; a page that it only read is shown afterwards."""
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    after = f"?next={quote(target, safe='/')}" if request.method == "GET" else ""
    return RedirectResponse(f"/login{after}", status_code=303)


def add_error_handlers(app: FastAPI) -> None:
    """Have every error of the application answered."""
    app.add_exception_handler(ApiError, _answer_api_error)
    app.add_exception_handler(StarletteHTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)
    app.add_exception_handler(OutriderError, _answer_outrider_error)
    app.add_exception_handler(Exception, _answer_unexpected)


def _answer_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    if error.status_code == 401 and is_for_page(request):
        return _lead_to_login(request)
    return problem_response(request, error.status_code, str(error.detail), headers=error.headers, extra=error.extra)


def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    details = {
        404: f"there is no {request.url.path}",
        405: f"{request.url.path} does not take {request.method}",
    }
    return problem_response(
        request, error.status_code, details.get(error.status_code, str(error.detail)), headers=error.headers
    )


def _answer_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    parts = [
        {"where": ".".join(str(each) for each in part["loc"]), "message": str(part["msg"])} for part in error.errors()
    ]
    detail = "; ".join(f"{each['where']}: {each['message']}" for each in parts)
    return problem_response(request, 422, detail, extra={"errors": parts})


def _answer_outrider_error(request: Request, error: Exception) -> Response:
    if isinstance(error, StorageUnavailable):
        return problem_response(request, 503, str(error), headers={"Retry-After": str(_RETRY_AFTER_S)})
    if isinstance(error, SchemaMismatch | ConfigError):
        return problem_response(request, 503, str(error))
    return _answer_unexpected(request, error)


def _answer_unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed.", request.method, request.url.path, exc_info=error, extra={"action": "server"})
    return problem_response(request, 500, "an unexpected error; the log of the server has it")
