"""The OpenAPI document: every operation answers errors as `application/problem+json`."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from monitor.server.problems import PROBLEM_TYPE, Problem

_REFERENCE = "#/components/schemas/{model}"
_UNUSED = ("HTTPValidationError", "ValidationError")


def set_openapi(app: FastAPI) -> None:
    """Have the application describe its errors as they are."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app)
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]  # FastAPI's documented way


def _build(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, routes=app.routes, description=app.description)
    schemas = document["components"]["schemas"]
    for name in _UNUSED:
        schemas.pop(name, None)
    problem = Problem.model_json_schema(ref_template=_REFERENCE)
    schemas.update(problem.pop("$defs", {}))
    schemas["Problem"] = problem
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {
                "description": "An error.",
                "content": {PROBLEM_TYPE: {"schema": {"$ref": _REFERENCE.format(model="Problem")}}},
            }
            if "get" in path and operation is path["get"]:
                operation["responses"].setdefault("304", {"description": "Not modified since the ETag of the request."})
    return document
