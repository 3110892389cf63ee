"""`outrider notify`: a channel is tried by the way that incidents go, and each failure is one line."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.control.outbox import Outbox
from storage.database.engine import Database
from tests.servers.receiver import RespondReaction, WebhookReceiver, refusing_port
from tests.unit.monitor.cli.conftest import OutriderRunner
from tests.unit.monitor.cli.payments_stream import PaymentsStream, write_config


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """The command sets up the log of its process, which is ours."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


Configure = Callable[[str], Path]


@pytest.fixture
def configure(tmp_path: Path, url: str) -> Configure:
    """Write a configuration whose channel `ops` is a webhook to an address."""
    return lambda address: write_config(
        tmp_path, url, f"notify: {{channels: {{ops: {{type: webhook, url: '{address}', secret: hush}}}}}}"
    )


def test_a_test_message_is_marked_and_signed_and_its_answer_is_shown(
    outrider: OutriderRunner, receiver: WebhookReceiver, configure: Configure
) -> None:
    ran = outrider("notify", "test", "ops", config=configure(receiver.url))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"ops (http://127.0.0.1:{receiver.port}/***): answered 204 in ")
    (request,) = receiver.requests
    body = json.loads(request.body)
    assert (body["test"], body["kind"], body["incident_id"]) == (True, "test", 0)
    assert body["id"] == request.headers["idempotency-key"]
    assert request.headers["outrider-signature"].startswith("sha256=")


@pytest.mark.parametrize(("status", "then"), [(403, "it would be given up at once"), (503, "it would be tried again")])
def test_a_test_that_fails_says_what_was_answered_and_ends_with_1(
    outrider: OutriderRunner, receiver: WebhookReceiver, configure: Configure, status: int, then: str
) -> None:
    receiver.react = lambda _: RespondReaction(status=status, body=b"no such room")
    ran = outrider("notify", "test", "ops", config=configure(receiver.url))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        f"outrider: channel ops (http://127.0.0.1:{receiver.port}/***) did not take the message: "
        f"answered {status}: no such room; {then}\n"
    )


def test_a_test_of_a_receiver_that_is_away_ends_with_1(outrider: OutriderRunner, configure: Configure) -> None:
    with refusing_port() as port:
        ran = outrider("notify", "test", "ops", config=configure(f"http://127.0.0.1:{port}/secret"))
    assert ran.code == 1
    assert "Connection refused" in ran.err
    assert "secret" not in ran.err
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "hint"), [("opz", "did you mean ops?"), ("lgo", "did you mean log?"), ("xyzzy", "known channels: ops")]
)
def test_an_unknown_channel_ends_with_2_and_the_nearest_one(
    outrider: OutriderRunner, receiver: WebhookReceiver, configure: Configure, name: str, hint: str
) -> None:
    ran = outrider("notify", "test", name, config=configure(receiver.url))
    assert (ran.code, ran.err) == (2, f"outrider: there is no channel '{name}'; {hint}\n")
    assert receiver.requests == []


def test_the_log_can_be_tried_too(outrider: OutriderRunner) -> None:
    ran = outrider("notify", "test", "log")
    assert (ran.code, ran.out.startswith("log (the log): logged in ")) == (0, True)
    assert "Test message: this is a test of the channel log" in ran.err


def test_a_bare_notify_lists_the_channels_and_what_became_of_their_messages(
    outrider: OutriderRunner, db: Database, payments: PaymentsStream, configure: Configure
) -> None:
    outbox = Outbox(db)
    message = outbox.claim("log", 1)
    assert message is not None
    outbox.mark_failed(message, "answered 410", lambda _: None)
    ran = outrider("notify", "list", "--format", "json", config=configure("https://hooks.example.org/T0/key"))
    rows = {row["channel"]: row for row in json.loads(ran.out)}
    assert rows["ops"]["target"] == "https://hooks.example.org/***"
    assert (rows["ops"]["type"], rows["ops"]["pending"], rows["ops"]["last_error"]) == ("webhook", 0, None)
    assert (rows["log"]["dead"], rows["log"]["last_error"]) == (1, "answered 410")
    assert "hooks.example.org" in outrider("notify", config=configure("https://hooks.example.org/T0/key")).out


def test_the_schema_of_the_body_is_printed(outrider: OutriderRunner) -> None:
    ran = outrider("notify", "schema")
    assert ran.code == 0
    assert "transition" in json.loads(ran.out)["properties"]
