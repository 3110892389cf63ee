"""The page of an incident renders for each kind, for old rows, and for hostile text."""

import html
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from monitor.incidents.lifecycle import Kind
from storage.database.engine import Database
from tests.unit.monitor.server.apps import build_settings, empty_database, open_client
from tests.unit.monitor.server.pages.stored_incidents import NUMBERS, T0, store_incident, store_stream

SAYS = {
    "spike": "outliers among",
    "slow_rise": "times as frequent as in the busiest",
    "drift": "amount is typically 19",
    "calibration": "these two causes cannot be distinguished",
    "silence": "the allowed silence is 3,600 s",
    "stopped": "The stream could not go on: the broker refuses the topic",
    "stalled": "its records are not decoded",
    "dead_letters": "300 of 600 records of the window were rejected",
    "late": "Cause: one partition is behind the others",
    "gap": "500 offsets could not be read",
}
HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture
def url(tmp_path: Path) -> str:
    return empty_database(tmp_path)


@pytest.fixture
def client(url: str) -> TestClient:
    return open_client(build_settings(url))


def store(url: str, kind: str, numbers: dict[str, object] | None, **options: object) -> int:
    with Database(url) as db:
        return store_incident(db, store_stream(db), kind, numbers, **options)  # type: ignore[arg-type]


def read_page(client: TestClient, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return html.unescape(answer.text)


@pytest.mark.parametrize("kind", list(Kind))
def test_each_kind_says_why(client: TestClient, url: str, kind: str) -> None:
    text = read_page(client, f"/incidents/{store(url, kind, NUMBERS[kind])}")
    if kind == "spike":  # without its windows
        assert "A summary of 2026-11-30 12:00" in text or "A summary of 12:00" in text or "A summary of 30 Nov" in text
    else:
        assert SAYS[kind] in text
    assert "could not be read:" not in text
    assert "Decide" in text
    assert "The test behind it" in text


@pytest.mark.parametrize("kind", list(Kind))
def test_an_incident_of_an_older_version_has_no_numbers(client: TestClient, url: str, kind: str) -> None:
    text = read_page(client, f"/incidents/{store(url, kind, None)}")
    assert "An earlier version stored no numbers" in text
    assert "could not be read:" not in text


@pytest.mark.parametrize("kind", ["silence", "stopped", "stalled", "late", "gap", "dead_letters"])
def test_what_cannot_become_normal_cannot_be_accepted(client: TestClient, url: str, kind: str) -> None:
    text = read_page(client, f"/incidents/{store(url, kind, NUMBERS[kind])}")
    assert "Acknowledge" in text
    assert "This is normal now" not in text


def test_a_resolved_incident_can_get_a_verdict_and_be_reopened(client: TestClient, url: str) -> None:
    text = read_page(client, f"/incidents/{store(url, 'silence', NUMBERS['silence'], resolved_at_us=T0 + 10**9)}")
    assert "Resolved after" in text
    for label in ("True alarm", "False alarm", "Reopen"):
        assert f">{label}</button>" in text
    assert ">Acknowledge</button>" not in text


def test_text_from_events_is_escaped(client: TestClient, url: str) -> None:
    keys = [{"key": HOSTILE, "events": 40, "outliers": 30, "times_the_others": 4.0, "p_value": 1e-9}]
    incident = store(url, "spike", NUMBERS["spike"] | {"keys": keys}, summary=HOSTILE)
    for path in ("/", "/incidents", f"/incidents/{incident}"):
        body = client.get(path).text
        assert "<script>alert" not in body
        assert "style=" not in body
        assert html.escape(HOSTILE) in body or "&#34;&gt;&lt;script&gt;" in body


def test_a_panel_that_cannot_be_read_says_why_and_keeps_the_others(client: TestClient, url: str) -> None:
    incident = store(url, "drift", {"horizons": [{"drifted": [{"statistic": "rank"}]}]})
    text = read_page(client, f"/incidents/{incident}")
    assert "This panel could not be read" in text
    assert "try again" in text
    assert "What happened" in text


def test_a_csv_has_the_rows_of_its_panel(client: TestClient, url: str) -> None:
    incident = store(url, "spike", NUMBERS["spike"])
    answer = client.get(f"/incidents/{incident}/whose.csv")
    assert answer.text.splitlines() == ["key,outliers,events,times the others,p", "T-118,30,40,41.0,1e-30"]
    assert client.get(f"/incidents/{incident}/nothing.csv").status_code == 404


def test_an_unknown_incident_is_not_found(client: TestClient, url: str) -> None:
    assert client.get("/incidents/12345").status_code == 404


def test_a_single_panel_is_answered_alone(client: TestClient, url: str) -> None:
    incident = store(url, "spike", NUMBERS["spike"])
    body = client.get(f"/incidents/{incident}?panel=timeline").text
    assert 'data-panel="timeline"' in body
    assert 'data-panel="decide"' not in body


def test_the_list_is_filtered_and_paged(client: TestClient, url: str) -> None:
    with Database(url) as db:
        stream_id = store_stream(db)
        for i in range(55):
            store_incident(db, stream_id, "spike", None, resolved_at_us=T0 + i, opened_at_us=T0 + i)
        store_incident(db, stream_id, "drift", None)
    first = read_page(client, "/incidents?kind=spike")
    assert first.count("payments spike</a>") == 50
    older = first.split('href="/incidents?')[1].split('"')[0]
    second = read_page(client, f"/incidents?{older}")
    assert second.count("payments spike</a>") == 5
    assert "payments drift" not in first
    assert client.get("/incidents?before=x").status_code == 422
    assert len(client.get("/incidents.csv?kind=drift").text.splitlines()) == 2


def test_a_page_without_a_database_is_grey_with_the_reason(tmp_path: Path) -> None:
    client = open_client(build_settings(f"sqlite:///{tmp_path / 'none.db'}"))
    text = read_page(client, "/")
    assert "The state of the streams is unknown" in text
    assert "is-well" not in text
