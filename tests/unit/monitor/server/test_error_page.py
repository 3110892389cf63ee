"""Errors are pages for a browser outside the API, and problems for everything else."""

import html
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from tests.unit.monitor.server.apps import TOKENS, VIEWER, bearer, build_settings, empty_database, open_client

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
HOSTILE = "/%22%3E%3Cscript%3Ealert(1)%3C/script%3E"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = build_settings(empty_database(tmp_path_factory.mktemp("errors")))
    client = open_client(settings, raise_server_exceptions=False)

    @client.app.get("/broken")  # type: ignore[attr-defined]
    def _fail(_request: Request) -> None:
        raise RuntimeError("secret of the program")

    yield client
    client.app.state.context.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/nothing", 404, "There is no /nothing."),
        ("GET", "/incidents/12345", 404, "There is no incident 12345."),
        ("GET", "/static/nothing.css", 404, "There is no /static/nothing.css."),
        ("GET", "/incidents/one", 422, "path.incident_id"),
        ("DELETE", "/incidents", 405, "/incidents does not take DELETE."),
        ("GET", "/broken", 500, "the log of the server has it"),
    ],
)
def test_a_browser_gets_a_page_with_the_reason_and_programs_a_problem(
    client: TestClient, method: str, path: str, status: int, reason: str
) -> None:
    page = client.request(method, path, headers=BROWSER)
    assert (page.status_code, page.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert reason.lower() in html.unescape(page.text).lower()
    assert '<a href="/">Overview</a>' in page.text
    assert "data-live" not in page.text, "the live page of an error would have nothing to show"
    assert "secret" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    problem = client.request(method, path, headers={"Accept": "*/*"})
    assert (problem.status_code, problem.headers["content-type"]) == (status, "application/problem+json")


def test_the_api_answers_a_browser_with_a_problem(client: TestClient) -> None:
    answer = client.get("/api/v1/incidents/12345", headers=BROWSER)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_refused_writes_of_a_browser_are_pages(client: TestClient) -> None:
    foreign = client.post("/incidents/1/confirm", headers={**BROWSER, "Origin": "http://elsewhere.example"})
    assert (foreign.status_code, "This is not allowed" in foreign.text) == (403, True)
    old = client.post("/incidents/1/confirm", data={"csrf": "old"}, headers=BROWSER)
    assert (old.status_code, "open the page again" in old.text) == (403, True)
    large = client.post("/incidents/1/confirm", data={"note": "x" * 70_000}, headers=BROWSER)
    assert (large.status_code, "larger than 64 KiB" in large.text) == (413, True)


def test_a_missing_scope_is_a_page(tmp_path: Path) -> None:
    client = open_client(build_settings(empty_database(tmp_path), {"tokens": TOKENS}))
    answer = client.post("/incidents/1/confirm", headers={**BROWSER, **bearer(VIEWER)})
    assert (answer.status_code, "viewer lacks the scope act" in answer.text.lower()) == (403, True)
    client.app.state.context.close()  # type: ignore[attr-defined]


def test_without_a_database_the_page_says_so_and_offers_another_try(tmp_path: Path) -> None:
    client = open_client(build_settings(f"sqlite:///{tmp_path / 'none.db'}"))
    answer = client.get("/incidents/1?panel=why", headers=BROWSER)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert '<a href="/incidents/1?panel=why">Try again</a>' in answer.text
    client.app.state.context.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("before", "link"),
    [
        ("http://127.0.0.1:8080/incidents?kind=spike", "/incidents?kind=spike"),
        ("http://127.0.0.1:8080//elsewhere.example/x", "/elsewhere.example/x"),
        ("http://elsewhere.example/incidents", None),
        ("http://127.0.0.1:8080/nothing", None),
        ("http://[", None),
        ("", None),
    ],
)
def test_the_way_back_stays_on_this_server(client: TestClient, before: str, link: str | None) -> None:
    text = client.get("/nothing", headers={**BROWSER, "Referer": before}).text
    assert (f'<a href="{link}">Back to the page before</a>' in text) == (link is not None)
    assert ("Back to the page before" in text) == (link is not None)


def test_text_of_an_address_is_escaped(client: TestClient) -> None:
    assert "<script>alert" not in client.get(HOSTILE, headers=BROWSER).text
