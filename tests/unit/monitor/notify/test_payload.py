"""The body of a webhook request and its schema."""

import json
import math

import pytest
from pydantic import ValidationError

from monitor.notify.payload import WebhookPayload, build_body, payload_schema
from tests.unit.monitor.notify.messages import make_message


def test_body_contains_the_incident_and_its_transition() -> None:
    assert json.loads(build_body(make_message())) == {
        "version": 1,
        "id": "0400107b56e45eeef8d8b68cdaf35518",
        "test": False,
        "stream": "payments",
        "incident_id": 7,
        "kind": "spike",
        "severity": "warning",
        "transition": "opened",
        "window_start": "2026-01-01T00:00:00.000000Z",
        "at": "2026-01-01T00:01:00.000000Z",
        "summary": "30 outliers among 60 events",
        "text": "Stream payments: spike opened (incident 7): 30 outliers among 60 events",
        "details": {"p_value": 1e-9, "window": {"start": "2026-01-01T00:00:00Z"}},
    }


def test_body_is_the_same_at_every_attempt() -> None:
    assert build_body(make_message(attempt=1)) == build_body(make_message(attempt=9))


def test_nan_and_infinities_become_null() -> None:
    def reject_constant(name: str) -> None:
        raise AssertionError(name)

    body = build_body(make_message(details={"z": math.inf, "deep": [{"p": math.nan}]}))
    assert json.loads(body, parse_constant=reject_constant)["details"] == {"z": None, "deep": [{"p": None}]}


def test_body_may_contain_any_unicode_text() -> None:
    assert json.loads(build_body(make_message(summary="größer ≥ 3 🚨")))["summary"] == "größer ≥ 3 🚨"


def test_test_message_is_marked() -> None:
    body = json.loads(build_body(make_message(test=True, kind="test", incident_id=0)))
    assert (body["test"], body["kind"], body["text"]) == (True, "test", "Test message: 30 outliers among 60 events")


def test_schema_describes_each_key() -> None:
    schema = payload_schema()
    assert set(schema["required"]) == set(schema["properties"]) == set(WebhookPayload.model_fields)
    assert all(described["description"] for described in schema["properties"].values())


def test_kind_outside_the_schema_is_an_error() -> None:
    with pytest.raises(ValidationError, match="kind"):
        build_body(make_message(kind="earthquake"))
