"""`outrider notify test` uses the channels of the incidents, and each failure is one line."""

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
def _restore_logging() -> Iterator[None]:
    """Restore the root logger, which the command configures for this process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


Configure = Callable[[str], Path]


@pytest.fixture
def configure(tmp_path: Path, url: str) -> Configure:
    """Return a function that writes a configuration with a webhook channel `ops` to an address."""
    return lambda address: write_config(
        tmp_path, url, f"notify: {{channels: {{ops: {{type: webhook, url: '{address}', secret: hush}}}}}}"
    )


def test_opened_and_resolved_samples_are_marked_and_signed_and_their_answers_are_shown(
    outrider: OutriderRunner, receiver: WebhookReceiver, configure: Configure
) -> None:
    result = outrider("notify", "test", "ops", config=configure(receiver.url))
    assert (result.code, result.err) == (0, "")
    lines, target = result.out.splitlines(), f"ops (http://127.0.0.1:{receiver.port}/***)"
    assert [line.rpartition(" in ")[0] for line in lines] == [
        f"{target}: opened: answered 204",
        f"{target}: resolved: answered 204",
    ]
    bodies = [json.loads(request.body) for request in receiver.requests]
    assert [body["transition"] for body in bodies] == ["opened", "resolved"]
    for body, request in zip(bodies, receiver.requests, strict=True):
        assert (body["test"], body["kind"], body["incident_id"]) == (True, "test", 0)
        assert body["id"] == request.headers["idempotency-key"]
        assert request.headers["outrider-signature"].startswith("sha256=")


@pytest.mark.parametrize(("status", "outcome"), [(403, "it would be given up at once"), (503, "it would be retried")])
def test_failed_test_message_shows_the_answer_and_exits_with_1(
    outrider: OutriderRunner, receiver: WebhookReceiver, configure: Configure, status: int, outcome: str
) -> None:
    receiver.react = lambda _: RespondReaction(status=status, body=b"no such hook")
    result = outrider("notify", "test", "ops", config=configure(receiver.url))
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        f"outrider: channel ops (http://127.0.0.1:{receiver.port}/***) did not accept the message `opened`: "
        f"answered {status}: no such hook; {outcome}\n"
    )


def test_unavailable_receiver_exits_with_1(outrider: OutriderRunner, configure: Configure) -> None:
    with refusing_port() as port:
        result = outrider("notify", "test", "ops", config=configure(f"http://127.0.0.1:{port}/secret"))
    assert result.code == 1
    assert "Connection refused" in result.err
    assert "secret" not in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "hint"), [("opz", "did you mean ops?"), ("lgo", "did you mean log?"), ("xyzzy", "known channels: ops")]
)
def test_unknown_channel_exits_with_2_and_a_suggestion(
    outrider: OutriderRunner, receiver: WebhookReceiver, configure: Configure, name: str, hint: str
) -> None:
    result = outrider("notify", "test", name, config=configure(receiver.url))
    assert (result.code, result.err) == (2, f"outrider: there is no channel '{name}'; {hint}\n")
    assert receiver.requests == []


def test_log_channel_can_be_tested(outrider: OutriderRunner) -> None:
    result = outrider("notify", "test", "log")
    assert (result.code, result.out.startswith("log (the log): opened: logged in ")) == (0, True)
    assert "Test message: this is a test of the channel log" in result.err


def test_channels_are_listed_with_their_message_counts(
    outrider: OutriderRunner, db: Database, payments: PaymentsStream, configure: Configure
) -> None:
    outbox = Outbox(db)
    message = outbox.claim("log", 1)
    assert message is not None
    outbox.mark_failed(message, "answered 410", lambda _: None)
    result = outrider("notify", "list", "--format", "json", config=configure("https://hooks.example.org/T0/key"))
    rows = {row["channel"]: row for row in json.loads(result.out)}
    assert rows["ops"]["target"] == "https://hooks.example.org/***"
    assert (rows["ops"]["type"], rows["ops"]["pending"], rows["ops"]["last_error"]) == ("webhook", 0, None)
    assert (rows["log"]["dead"], rows["log"]["last_error"]) == (1, "answered 410")
    assert "hooks.example.org" in outrider("notify", config=configure("https://hooks.example.org/T0/key")).out


def test_schema_of_the_request_body_is_printed(outrider: OutriderRunner) -> None:
    result = outrider("notify", "schema")
    assert result.code == 0
    assert "transition" in json.loads(result.out)["properties"]


def test_template_that_fails_is_an_error_of_the_test_although_the_messages_are_sent(
    outrider: OutriderRunner, receiver: WebhookReceiver, tmp_path: Path, url: str
) -> None:
    channel = f"{{type: slack, webhook_url: '{receiver.url}', template: '{{{{ details.nothing }}}}'}}"
    config = write_config(tmp_path, url, f"notify: {{channels: {{chat: {channel}}}}}")
    receiver.react = lambda _: RespondReaction(status=200, body=b"ok")
    result = outrider("notify", "test", "chat", config=config)
    assert result.code == 2
    assert "notify.channels.chat.template: fails (UndefinedError: " in result.err
    assert len(receiver.requests) == 2


def test_check_finds_templates_that_fail(outrider: OutriderRunner, tmp_path: Path, url: str) -> None:
    channels = ", ".join(
        f"{name}: {{type: apprise, url: 'json://localhost', template: '{template}'}}"
        for name, template in {
            "a": "{{ sumary }}",
            "b": "{{ summary",
            "c": "{{ details.n }}",
            "d": "{{ kind }}",
        }.items()
    )
    result = outrider("check", "--offline", config=write_config(tmp_path, url, f"notify: {{channels: {{{channels}}}}}"))
    assert result.code == 2
    assert "notify.channels.a.template: fails for a message spike opened: UndefinedError" in result.err
    assert "notify.channels.b.template: is not valid" in result.err
    assert "# warning: notify.channels.c.template: fails where a detail is missing" in result.out
    assert "channels.d" not in result.err
