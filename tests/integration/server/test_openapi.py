"""Generated requests for every operation: no server error, and every answer as the OpenAPI document says."""

from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.server.conftest import Served
from tests.unit.monitor.server.apps import OPS, TOKENS, bearer

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
_HEADERS = bearer(OPS) | {"Host": "127.0.0.1:8080"}
_SLOW = ("/api/v1/live",)
"""An endless answer."""


def run_cases(served: Served, cases_per_operation: int) -> int:
    """Send generated requests to every operation; return their number."""
    app = served.client(tokens=TOKENS).app
    app.state.context.trial_wait_s = 0.0  # type: ignore[attr-defined]
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, headers=_HEADERS)
    sent = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path in _SLOW:
            continue

        @hypothesis.settings(
            max_examples=cases_per_operation,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def send(case: Any) -> None:
            nonlocal sent
            sent += 1
            case.call_and_validate(checks=CHECKS, headers=_HEADERS)

        send()
    return sent


def test_every_operation_answers_as_documented(served: Served) -> None:
    assert run_cases(served, 10) > 200


@pytest.mark.long
@pytest.mark.timeout(3_000)
def test_every_operation_answers_as_documented_for_long(served: Served) -> None:
    assert run_cases(served, 400) > 5_000
