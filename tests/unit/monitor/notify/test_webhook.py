"""The webhook channel against a real HTTP server: requests, interpretation of answers, and timeouts."""

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.channels.webhook import WebhookChannelSettings
from monitor.notify.http_answer import interpret_response, parse_retry_after
from monitor.notify.http_post import HttpResponse
from monitor.notify.webhook import Webhook, sign_request
from tests.servers.receiver import DripReaction, HangReaction, RespondReaction, WebhookReceiver, refusing_port
from tests.unit.monitor.notify.messages import make_message

SECRET = "correct horse battery staple"
CERTIFICATE = Path(__file__).with_name("localhost.pem")


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


def make_webhook(url: str, **settings: Any) -> Webhook:
    return Webhook(WebhookChannelSettings.model_validate({"type": "webhook", "url": url} | settings))


def test_message_is_posted_as_json_with_its_id_as_idempotency_key(receiver: WebhookReceiver) -> None:
    result = make_webhook(receiver.url, headers={"X-Team": "ops"}).send(make_message())
    assert (result.outcome, result.detail) == ("delivered", "answered 204")
    (request,) = receiver.requests
    assert request.line == "POST /hook?team=ops HTTP/1.1"
    assert json.loads(request.body)["id"] == request.headers["idempotency-key"] == make_message().id
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["x-team"] == "ops"
    assert request.headers["user-agent"].startswith("Outrider/")
    assert "outrider-signature" not in request.headers


def test_signature_covers_timestamp_and_body(receiver: WebhookReceiver) -> None:
    make_webhook(receiver.url, secret=SECRET).send(make_message())
    (request,) = receiver.requests
    timestamp = request.headers["outrider-timestamp"]
    expected = hmac.new(SECRET.encode(), f"{timestamp}.".encode() + request.body, hashlib.sha256).hexdigest()
    assert request.headers["outrider-signature"] == f"sha256={expected}"
    assert abs(int(timestamp) - time.time()) < 60


def test_signature_of_a_known_request() -> None:
    # echo -n '1767225600.{}' | openssl dgst -sha256 -hmac key
    expected = "sha256=" + hmac.digest(b"key", b"1767225600.{}", "sha256").hex()
    assert sign_request("key", 1_767_225_600, b"{}") == expected


def test_user_and_password_of_the_url_become_basic_authorization(receiver: WebhookReceiver) -> None:
    url = receiver.url.replace("127.0.0.1", "ann:p%40ss@127.0.0.1")
    make_webhook(url).send(make_message())
    make_webhook(url, headers={"authorization": "Bearer x"}).send(make_message())
    assert [request.headers["authorization"] for request in receiver.requests] == ["Basic YW5uOnBAc3M=", "Bearer x"]
    assert receiver.requests[0].headers["host"] == f"127.0.0.1:{receiver.port}"


@pytest.mark.parametrize("status", [500, 502, 503, 408, 425, 429])
def test_temporary_failure_is_retried(receiver: WebhookReceiver, status: int) -> None:
    receiver.react = lambda _: RespondReaction(status=status, headers={"Retry-After": "7"})
    result = make_webhook(receiver.url).send(make_message())
    assert (result.outcome, result.retry_after_s) == ("retry", 7.0)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 422])
def test_permanent_failure_is_refused(receiver: WebhookReceiver, status: int) -> None:
    receiver.react = lambda _: RespondReaction(status=status, body=b"no such\nroom")
    result = make_webhook(receiver.url).send(make_message())
    assert (result.outcome, result.detail) == ("refused", f"answered {status}: no such room")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "auth"),
        (403, "auth"),
        (404, "client_error"),
        (302, "client_error"),
        (408, "timeout"),
        (425, "server_error"),
        (429, "rate_limited"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_reason_of_a_failure_is_a_word_of_a_closed_set(receiver: WebhookReceiver, status: int, reason: str) -> None:
    receiver.react = lambda _: RespondReaction(status=status)
    assert make_webhook(receiver.url).send(make_message()).reason == reason


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_not_followed(receiver: WebhookReceiver, status: int) -> None:
    receiver.react = lambda _: RespondReaction(
        status=status, headers={"Location": f"http://127.0.0.1:{receiver.port}/other"}
    )
    result = make_webhook(receiver.url).send(make_message())
    assert result.outcome == "refused"
    assert "redirects are not followed" in result.detail
    assert len(receiver.requests) == 1


def test_secrets_in_the_answer_are_masked(receiver: WebhookReceiver) -> None:
    body = f"no: {SECRET} Bearer abcdef /hook?team=ops {'x' * 1000}".encode()
    receiver.react = lambda _: RespondReaction(status=403, body=body)
    result = make_webhook(receiver.url, secret=SECRET, headers={"Authorization": "Bearer abcdef"}).send(make_message())
    assert result.detail.startswith("answered 403: no: *** *** *** xxx")
    assert len(result.detail) < 250


def test_request_without_answer_ends_at_the_timeout(receiver: WebhookReceiver) -> None:
    receiver.react = lambda _: HangReaction()
    begin_s = time.monotonic()
    result = make_webhook(receiver.url, timeout="300ms").send(make_message())
    assert time.monotonic() - begin_s < 2
    assert (result.outcome, result.reason, result.detail) == (
        "retry",
        "timeout",
        f"127.0.0.1:{receiver.port} has not answered within 0.3 s",
    )


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: "])
def test_answer_that_drips_is_cut_off_at_the_timeout(receiver: WebhookReceiver, head: bytes) -> None:
    receiver.react = lambda _: DripReaction(head=head, every_s=0.02)
    begin_s = time.monotonic()
    result = make_webhook(receiver.url, timeout="500ms").send(make_message())
    assert time.monotonic() - begin_s < 2
    assert result.outcome == "retry"


def test_body_that_drips_after_status_200_does_not_prevent_delivery(receiver: WebhookReceiver) -> None:
    receiver.react = lambda _: DripReaction(head=b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", every_s=0.02)
    begin_s = time.monotonic()
    assert make_webhook(receiver.url).send(make_message()).outcome == "delivered"
    assert time.monotonic() - begin_s < 5


def test_answer_with_endless_headers_is_cut_off(receiver: WebhookReceiver) -> None:
    receiver.react = lambda _: DripReaction(head=b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 90_000)
    assert make_webhook(receiver.url).send(make_message()).outcome == "retry"


def test_answer_that_is_not_http_is_retried(receiver: WebhookReceiver) -> None:
    receiver.react = lambda _: DripReaction(head=b"SSH-2.0-OpenSSH\r\n")
    result = make_webhook(receiver.url).send(make_message())
    assert (result.outcome, "is not HTTP" in result.detail) == ("retry", True)


def test_refused_connection_is_retried() -> None:
    with refusing_port() as port:
        result = make_webhook(f"http://127.0.0.1:{port}/").send(make_message())
    assert (result.outcome, result.reason, result.detail) == (
        "retry",
        "connection",
        f"127.0.0.1:{port}: Connection refused",
    )


def test_error_for_an_unknown_host_names_it() -> None:
    result = make_webhook("https://nowhere.invalid/").send(make_message())
    assert result.outcome == "retry"
    assert result.detail.startswith("the host nowhere.invalid cannot be found")


def test_untrusted_certificate_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with WebhookReceiver(certificate=CERTIFICATE) as secure:
        result = make_webhook(secure.url).send(make_message())
        assert (result.outcome, result.reason, secure.requests) == ("retry", "tls", [])
        assert "the certificate of 127.0.0.1" in result.detail


def test_certificate_authority_of_ssl_cert_file_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with WebhookReceiver(certificate=CERTIFICATE) as secure:
        assert make_webhook(secure.url).send(make_message()).outcome == "delivered"
        assert len(secure.requests) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        ("soon", None),
        ("-5", None),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Thu, 01 Jan 2026 00:01:00 -0000", 60.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_parsed_as_seconds_or_as_a_date(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, 1_767_225_600.0) == seconds


def test_informational_status_is_refused() -> None:
    result = interpret_response(HttpResponse(status=101, headers={}, body_excerpt=""), now_s=0.0, quote="")
    assert (result.outcome, result.detail) == ("refused", "answered 101")
