"""Persons, sessions, hosts and origins: only the right requests are answered."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from monitor.server.access.sessions import SESSION_LENGTH_S
from monitor.server.failures import MAX_FAILURES, PERIOD_S
from tests.unit.monitor.server.apps import (
    OPS,
    TOKENS,
    VIEWER,
    Clock,
    bearer,
    build_settings,
    empty_database,
    open_client,
)

STREAMS = "/api/v1/streams"
MUTES = "/api/v1/mutes"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return empty_database(tmp_path_factory.mktemp("server"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(url: str, clock: Clock) -> Iterator[Any]:
    opened: list[TestClient] = []

    def build(server: dict[str, Any] | None = None, **options: Any) -> TestClient:
        client = open_client(build_settings(url, server), clock, **options)
        opened.append(client)
        return client

    yield build
    for client in opened:
        client.app.state.context.close()  # type: ignore[attr-defined]


def test_loopback_without_tokens_answers_anyone_on_the_machine(make: Any) -> None:
    assert make().get(STREAMS).json() == {"items": []}


def test_with_tokens_a_request_needs_one(make: Any) -> None:
    client = make({"tokens": TOKENS})
    missing = client.get(STREAMS)
    assert (missing.status_code, missing.headers["www-authenticate"]) == (401, "Bearer")
    assert missing.headers["content-type"] == "application/problem+json"
    assert client.get(STREAMS, headers=bearer("wrong")).status_code == 401
    assert client.get(STREAMS, headers={"Authorization": f"Basic {OPS}"}).status_code == 401
    assert client.get(STREAMS, headers=bearer(VIEWER)).status_code == 200


def test_a_token_in_the_address_is_not_accepted(make: Any) -> None:
    assert make({"tokens": TOKENS}).get(f"{STREAMS}?token={OPS}").status_code == 401


def test_a_browser_is_led_to_the_login_and_back(make: Any) -> None:
    client = make({"tokens": TOKENS})
    answer = client.post("/login", data={"token": OPS, "next": "/streams/a?from=1"}, headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/streams/a?from=1")
    assert client.get(STREAMS).status_code == 200


@pytest.mark.parametrize("target", ["https://evil.example", "//evil.example", "/\\evil.example", "", "javascript:x"])
def test_the_login_leads_to_no_other_server(make: Any, target: str) -> None:
    client = make({"tokens": TOKENS})
    answer = client.post("/login", data={"token": OPS, "next": target}, headers={"Accept": "text/html"})
    assert answer.headers["location"] == "/"


def test_the_cookie_of_a_session_is_out_of_reach_of_scripts_and_other_sites(make: Any) -> None:
    plain = make({"tokens": TOKENS}).post("/login", json={"token": OPS})
    assert plain.status_code == 204
    cookie = plain.headers["set-cookie"].lower()
    assert cookie.startswith("outrider=")
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie
    server = {"tokens": TOKENS, "url": "https://outrider.example"}
    client = make(server, host="outrider.example")
    cookie = client.post("/login", json={"token": OPS}).headers["set-cookie"]
    assert cookie.startswith("__Host-outrider=")
    assert "Secure" in cookie


def test_a_session_expires_and_can_be_ended(make: Any, clock: Clock) -> None:
    client = make({"tokens": TOKENS})
    client.post("/login", json={"token": VIEWER})
    assert client.get(STREAMS).status_code == 200
    clock.now_s += SESSION_LENGTH_S + 1
    assert client.get(STREAMS).status_code == 401
    client.post("/login", json={"token": VIEWER})
    assert client.get(STREAMS).status_code == 200
    client.post("/logout")
    assert client.get(STREAMS).status_code == 401


def test_a_forged_session_is_refused(make: Any) -> None:
    client = make({"tokens": TOKENS})
    client.post("/login", json={"token": VIEWER})
    name, ends, nonce, signature = client.cookies["outrider"].split(".")
    forged = [
        f"{name}.{int(ends) + 9}.{nonce}.{signature}",
        f"b3Bz.{ends}.{nonce}.{signature}",
        f"{name}.{ends}.{nonce}.",
        "a.b.c.d",
        "x" * 5000,
        "....",
    ]
    client.cookies.clear()
    for cookie in forged:
        assert client.get(STREAMS, headers={"Cookie": f"outrider={cookie}"}).status_code == 401, cookie


def test_a_session_ends_when_its_token_changes(make: Any) -> None:
    client = make({"tokens": TOKENS})
    client.post("/login", json={"token": VIEWER})
    cookie = client.cookies["outrider"]
    same, changed = make({"tokens": TOKENS}), make({"tokens": [TOKENS[0], TOKENS[1] | {"token": "another"}]})
    assert same.get(STREAMS, headers={"Cookie": f"outrider={cookie}"}).status_code == 200
    assert changed.get(STREAMS, headers={"Cookie": f"outrider={cookie}"}).status_code == 401


def test_wrong_tokens_are_limited_and_the_limit_ends(make: Any, clock: Clock) -> None:
    client = make({"tokens": TOKENS})
    for number in range(MAX_FAILURES):
        assert client.post("/login", json={"token": f"guess-{number}"}).status_code == 401
    limited = client.post("/login", json={"token": OPS})
    assert limited.status_code == 429
    assert 0 < int(limited.headers["retry-after"]) <= PERIOD_S
    assert client.get(STREAMS, headers=bearer("guess")).status_code == 429
    clock.now_s += PERIOD_S + 1
    assert client.get(STREAMS, headers=bearer(OPS)).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1:8081", "127.0.0.1", "", "localhost"])
def test_another_host_name_is_not_answered(make: Any, host: str) -> None:
    assert make().get(STREAMS, headers={"Host": host}).status_code == 421


def test_the_configured_hosts_are_answered(make: Any) -> None:
    client = make({"tokens": TOKENS, "url": "https://outrider.example", "hosts": ["inside.example"]})
    for host in ("localhost:8080", "[::1]:8080", "outrider.example", "outrider.example:443", "INSIDE.example"):
        assert client.get(STREAMS, headers=bearer(OPS) | {"Host": host}).status_code == 200, host


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_write_from_another_site_is_refused(make: Any, headers: dict[str, str]) -> None:
    client = make()
    assert client.post("/logout", headers=headers).status_code == 403
    own = {"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/logout", headers=own).status_code == 204


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x"])
def test_a_body_that_a_foreign_form_can_send_is_refused(make: Any, kind: str) -> None:
    assert make().post("/login", content=b'{"token": "x"}', headers={"Content-Type": kind}).status_code == 415


def test_a_large_body_is_refused(make: Any) -> None:
    client = make()
    assert client.post("/login", data={"token": "x" * 100_000}).status_code == 413
    chunks = (b"x" * 1000 for _ in range(100))
    headers = {"Content-Type": "application/json"}
    assert client.post("/login", content=chunks, headers=headers).status_code == 413


def test_a_person_named_by_the_trusted_proxy_needs_no_token(make: Any) -> None:
    proxy = {"header": "X-Forwarded-User", "trusted_proxies": ["127.0.0.0/8"], "scopes": ["read"]}
    client = make({"auth_proxy": proxy})
    assert client.get(STREAMS).status_code == 401
    assert client.get(STREAMS, headers={"X-Forwarded-User": "ann"}).status_code == 200
    assert client.get(STREAMS, headers={"X-Forwarded-User": "a\x07nn"}).status_code == 401


def test_the_header_of_a_proxy_is_ignored_from_any_other_address(make: Any) -> None:
    proxy = {"header": "X-Forwarded-User", "trusted_proxies": ["10.0.0.7"]}
    client = make({"auth_proxy": proxy, "tokens": TOKENS})
    headers = {"X-Forwarded-User": "ann", "X-Forwarded-For": "10.0.0.7"}
    assert client.get(STREAMS, headers=headers).status_code == 401


def test_every_answer_has_the_security_headers_and_no_cors(make: Any) -> None:
    client = make()
    answers = [client.get(STREAMS), client.get("/nothing"), client.get(STREAMS, headers={"Host": "x"})]
    for answer in answers:
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in answer.headers
    asked = client.options(STREAMS, headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"})
    assert asked.status_code == 405


def test_a_database_that_does_not_exist_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    client = open_client(build_settings(f"sqlite:///{tmp_path / 'missing.db'}"))
    answer = client.get(STREAMS)
    assert answer.status_code == 503
    assert "start the daemon once" in answer.json()["detail"]
    assert not (tmp_path / "missing.db").exists()


def test_no_page_of_the_framework_is_served(make: Any) -> None:
    client = make()
    assert [client.get(path).status_code for path in ("/docs", "/redoc", "/openapi.json")] == [404, 404, 404]
    assert client.get("/api/v1/openapi.json").status_code == 200
