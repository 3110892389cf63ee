"""Every resource of the API, on both databases, read with SELECT rights only."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from monitor.backtest import backtest
from storage.database.engine import Database
from tests.integration.server.conftest import Served
from tests.unit.monitor.server.apps import OPS, VIEWER, bearer

API = "/api/v1"
STREAM = f"{API}/streams/payments"
LISTS = [
    f"{STREAM}/windows",
    f"{STREAM}/thresholds",
    f"{STREAM}/drift",
    f"{STREAM}/calibration",
    f"{STREAM}/outliers",
    f"{API}/incidents",
    f"{API}/verdicts",
    f"{API}/notifications",
    f"{API}/dead-letters",
    f"{API}/gaps",
    f"{API}/mutes",
]


@pytest.fixture
def client(served: Served) -> TestClient:
    return served.client()


def get(client: TestClient, path: str, **options: Any) -> Any:
    answer = client.get(path, **options)
    while answer.status_code == 202:  # a back-test goes on; each request waits for it
        answer = client.get(path, **options)
    assert answer.status_code == 200, (path, answer.text)
    return answer.json()


def find_spike(client: TestClient) -> int:
    return int(get(client, f"{API}/incidents?kind=spike")["items"][-1]["id"])


def test_every_read_needs_only_select_rights(served: Served) -> None:
    client = served.client(as_reader=True)
    spike = find_spike(client)
    paths = [
        *LISTS,
        f"{API}/streams",
        STREAM,
        f"{STREAM}/health",
        f"{API}/health",
        f"{STREAM}/models",
        f"{STREAM}/horizons",
        f"{STREAM}/histograms?since=10m",
        f"{STREAM}/drift-cells?horizon_us=600000000",
        f"{API}/incidents/{spike}",
        f"{API}/incidents/{spike}/preview?verb=false_alarm",
        f"{STREAM}/whatif?percentile=99.5&false_alarms=1/week",
    ]
    for path in paths:
        get(client, path)


def test_rows_have_the_names_and_values_of_the_views(served: Served, client: TestClient) -> None:
    items = get(client, f"{STREAM}/windows?limit=1000")["items"]
    with Database(served.settings.database.url, read_only=True) as db, db.read() as connection:
        stored = connection.exec_driver_sql(
            "SELECT events, outliers, p_value, energy_max FROM window_history ORDER BY window_start_us DESC"
        ).all()
    assert len(items) > 60
    assert [(row["events"], row["outliers"], row["p_value"], row["energy_max"]) for row in items] == list(
        map(tuple, stored)
    )
    assert items[0]["window_start"] > items[1]["window_start"]
    assert items[0]["window_start"].endswith(":00.000000Z")


@pytest.mark.parametrize("path", LISTS)
def test_pages_join_to_the_whole_list(client: TestClient, path: str) -> None:
    whole = get(client, f"{path}?limit=1000")["items"][:37]
    joined: list[Any] = []
    cursor = ""
    while len(joined) < len(whole):
        page = get(client, f"{path}?limit=5{cursor}")
        joined += page["items"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert joined[: len(whole)] == whole


def test_paging_is_stable_while_rows_are_added(served: Served, client: TestClient) -> None:
    for number in range(6):
        assert client.post(f"{API}/mutes", json={"key": f"k{number}", "for": "1h"}).status_code == 201
    first = get(client, f"{API}/mutes?limit=3")
    before = [row["id"] for row in get(client, f"{API}/mutes?limit=1000")["items"]]
    client.post(f"{API}/mutes", json={"key": "later", "for": "1h"})
    seen = [row["id"] for row in first["items"]]
    while first["next"] is not None:
        first = get(client, f"{API}/mutes?limit=3&cursor={first['next']}")
        seen += [row["id"] for row in first["items"]]
    assert seen == before


def test_times_bound_a_list(client: TestClient) -> None:
    items = get(client, f"{STREAM}/windows?since=2026-01-01T00:30:00Z&until=2026-01-01T00:40:00%2B00:00")["items"]
    assert [row["window_start"][11:16] for row in items] == [f"00:{minute}" for minute in range(39, 29, -1)]
    latest = get(client, f"{STREAM}/windows?since=5m")["items"]
    assert len(latest) == 6
    assert get(client, f"{STREAM}/windows?until=1970-01-01T00:00:00Z") == {"items": [], "next": None}


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (f"{STREAM}/windows?limit=0", "query.limit"),
        (f"{STREAM}/windows?limit=1001", "query.limit"),
        (f"{STREAM}/windows?since=yesterday", "query.since"),
        # Durations that the settings do not know either.
        (f"{API}/incidents?since=11288us", "query.since"),
        (f"{API}/incidents?until=999999w", "query.until"),
        (f"{STREAM}/windows?sinse=1h", "query.sinse"),
        (f"{STREAM}/windows?cursor=WzEsMl0", "cursor"),
        (f"{STREAM}/windows?cursor=WyJhIiwiYiJd", "cursor"),
        (f"{API}/notifications?cursor=WzEsMl0", "cursor"),
        (f"{STREAM}/outliers?key=%00", "query.key"),
        (f"{API}/incidents/99999999999999999999", "path.id"),
        (f"{STREAM}/whatif?percentile=20", "percentile"),
        (f"{API}/streams/Not-A-Name", "path.name"),
    ],
)
def test_invalid_requests_name_the_part(client: TestClient, path: str, where: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert where in answer.json()["detail"]


def test_unknown_things_and_methods_are_problems(client: TestClient) -> None:
    for path in (f"{API}/streams/unknown", f"{API}/streams/unknown/windows", f"{API}/incidents/999999", f"{API}/x"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["status"]) == (404, 404), path
        assert answer.headers["content-type"] == "application/problem+json"
    answer = client.delete(f"{API}/mutes")
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]


def test_an_unchanged_list_is_not_sent_again(client: TestClient) -> None:
    first = client.get(f"{STREAM}/windows?limit=3")
    again = client.get(f"{STREAM}/windows?limit=3", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"{STREAM}/windows?limit=4", headers={"If-None-Match": first.headers["etag"]}).status_code == 200


def test_a_verb_acts_on_the_basis_of_its_preview(served: Served) -> None:
    client = served.client_with_tokens()
    client.headers.update(bearer(OPS))
    spike = find_spike(client)
    path = f"{API}/incidents/{spike}"
    shown = client.get(f"{path}/preview?verb=false-alarm")
    etag = shown.headers["etag"]
    assert shown.json()["etag"] == etag
    assert shown.json()["windows"] > 0
    assert client.post(f"{path}/false-alarm").status_code == 428
    changed = client.post(f"{path}/false-alarm", headers={"If-Match": '"1.1"'})
    assert changed.status_code == 412
    done = client.post(f"{path}/false-alarm", headers={"If-Match": etag}, json={"note": "<b>no</b>"})
    assert (done.status_code, done.json()["outcome"]) == (200, "done")
    assert done.json()["windows"] == shown.json()["windows"]
    # The verb has changed the calibration, so another verb needs a new preview.
    assert client.post(f"{path}/confirm", headers={"If-Match": etag}).status_code == 412
    again = client.post(f"{path}/false-alarm", headers={"If-Match": "*"})
    assert again.json()["outcome"] == "unchanged"
    refused = client.post(f"{path}/acknowledge", headers={"If-Match": "*"})
    assert refused.status_code == 409
    assert "possible are" in refused.json()["detail"]
    detail = get(client, path)
    assert (detail["verdict"], detail["verbs"][0]["who"], detail["verbs"][0]["note"]) == (
        "false_alarm",
        "ops",
        "<b>no</b>",
    )
    assert get(client, f"{API}/verdicts?incident_id={spike}")["items"][0]["note"] == "<b>no</b>"


def test_scopes_are_required(served: Served) -> None:
    client = served.client_with_tokens()
    spike = find_spike_as(client)
    writes = [
        (f"{API}/incidents/{spike}/confirm", "act"),
        (f"{API}/mutes", "act"),
        (f"{API}/mutes/1/end", "act"),
        (f"{STREAM}/models/1/promote", "promote"),
        (f"{STREAM}/models/rollback", "promote"),
    ]
    for path, scope in writes:
        assert client.post(path, headers={"If-Match": "*"}).status_code == 401, path
        answer = client.post(path, headers=bearer(VIEWER) | {"If-Match": "*"}, json={})
        assert answer.status_code == 403, path
        assert f"scope {scope}" in answer.json()["detail"]
    for path in LISTS:
        assert client.get(path).status_code == 401, path


def find_spike_as(client: TestClient) -> int:
    answer = client.get(f"{API}/incidents?kind=spike", headers=bearer(OPS))
    return int(answer.json()["items"][-1]["id"])


def test_models_are_promoted_only_where_it_makes_sense(client: TestClient) -> None:
    active = client.post(f"{STREAM}/models/1/promote")
    assert (active.status_code, "already the active model" in active.json()["detail"]) == (409, True)
    assert client.post(f"{STREAM}/models/77/promote").status_code == 404
    assert client.post(f"{STREAM}/models/rollback").status_code == 409


def test_whatif_equals_the_back_test_cell_by_cell(served: Served, client: TestClient) -> None:
    path = f"{STREAM}/whatif?percentile=99&percentile=99.9&false_alarms=1/day&false_alarms=1/week"
    answered = get(client, path)
    expected = backtest(served.settings, "payments", percentiles=[99, 99.9], false_alarms=["1/day", "1/week"])
    assert answered["cells"] == json.loads(json.dumps(expected.rows()))
    assert len(answered["cells"]) == 4
    assert get(client, path) == answered


HOSTILE = [
    "<script>alert(1)</script>",
    "'; DROP TABLE mutes; --",
    '" OR 1=1',
    "{{7*7}}",
    "%s %(a)s $1",
    "ключ",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_come_back_as_data(client: TestClient, text: str) -> None:
    added = client.post(f"{API}/mutes", json={"key": text, "note": text, "for": "1h"})
    assert added.status_code == 201, added.text
    newest = get(client, f"{API}/mutes?limit=1")["items"][0]
    assert (newest["key"], newest["note"]) == (text, text)
    assert get(client, f"{STREAM}/outliers", params={"key": text})["items"] == []
    assert get(client, f"{API}/incidents", params={"stream": text})["items"] == []


def test_a_mute_ends_and_says_so(client: TestClient) -> None:
    mute = client.post(f"{API}/mutes", json={"stream": "payments", "for": "2h"}).json()["id"]
    assert client.post(f"{API}/mutes/{mute}/end").status_code == 200
    assert client.post(f"{API}/mutes/999999/end").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"for": "1h"},
        {"kind": "spike"},
        {"kind": "spike", "for": "1h", "until": "2030-01-01T00:00:00Z"},
        {"kind": "spike", "for": "9999d"},
        {"kind": "spike", "until": "2000-01-01T00:00:00Z"},
        {"stream": "unknown", "for": "1h"},
        {"incident_id": 999_999, "for": "1h"},
        {"kind": "spike", "for": "1h", "weekly": "never"},
        {"key": "a\u0000b", "for": "1h"},
        {"kind": "spike", "for": "1h", "who": "someone else"},
    ],
)
def test_a_mute_that_makes_no_sense_is_refused(client: TestClient, body: dict[str, Any]) -> None:
    assert client.post(f"{API}/mutes", json=body).status_code == 422
