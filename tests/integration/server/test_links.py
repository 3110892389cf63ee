"""Signed links of mails: forgery, replay, expiry, another verb, scanners that only look, concurrent use."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from config.settings import Settings
from monitor.notify.signed_links import LINK_LIFETIME_US, LinkClaim, sign_link
from monitor.server.app import create_app
from monitor.server.context import ServerContext
from storage.control.database_id import DatabaseId
from storage.control.incidents import write_incident
from storage.control.records import Incident, Transition
from storage.database.engine import Database
from tests.integration.control.worker_bench import MINUTE, T0, fetch_rows, open_stream

SECRET, FORMER = "the secret of the links, with length".replace(" ", "-"), "f" * 40
KEY = "a-key-of-an-event"

Link = Callable[..., str]


@pytest.fixture
def db(upgraded_url: str) -> Iterator[Database]:
    with Database(upgraded_url) as database:
        yield database


@pytest.fixture
def incident_id(db: Database) -> int:
    """Return an open spike whose summary and details name a key and a feature."""
    stream_id, summary = open_stream(db, partitions=1), f"the key {KEY} and the feature amount"
    details = {"suspect_keys": [KEY]}
    transition = Transition(
        type="opened", severity="warning", window_start_us=T0, at_us=T0 + MINUTE, summary=summary, details=details,
        channels=("post",),
    )  # fmt: skip
    incident = Incident(
        id=None, kind="spike", severity="warning", status="open", window_start_us=T0, opened_at_us=T0 + MINUTE,
        last_told_us=T0, clean_windows=0, windows_fired=1, summary=summary, details=details, transition=transition,
    )  # fmt: skip
    with db.write() as conn:
        return write_incident(db, conn, stream_id, "payments", incident)


def make_settings(url: str, **server: Any) -> Settings:
    return Settings.model_validate(
        {
            "database": {"url": url},
            "streams": {"payments": {"source": {"type": "synthetic"}}},
            "server": {"link_secret": f"{SECRET}\n{FORMER}", "url": "http://localhost:8080"} | server,
        }
    )


@pytest.fixture
def client(db: Database, upgraded_url: str) -> Iterator[TestClient]:
    context = ServerContext(make_settings(upgraded_url))
    with TestClient(create_app(context), base_url="http://localhost:8080") as running:
        yield running
    context.close()


@pytest.fixture
def link(db: Database, incident_id: int) -> Link:
    """Return a function that signs a link to the incident, with changes of its claim."""

    def build(secret: str = SECRET, **changes: Any) -> str:
        claim = LinkClaim(
            database_id=DatabaseId(db).read(),
            incident_id=incident_id,
            verb="acknowledge",
            channel="post",
            expires_at_us=db.now_us() + LINK_LIFETIME_US,
        )
        return f"/links/{sign_link(replace(claim, **changes), secret)}"

    return build


def verbs(db: Database) -> list[tuple[Any, ...]]:
    return fetch_rows(db, "SELECT verb, who FROM verdict_history ORDER BY at")


def test_a_look_shows_no_key_and_no_feature_and_changes_nothing(client: TestClient, db: Database, link: Link) -> None:
    address = link()
    for _ in range(3):
        answer = client.get(address)
        assert answer.status_code == 200
        assert client.head(address).status_code == 200
    assert "Acknowledge: incident" in answer.text
    assert "payments" in answer.text
    assert KEY not in answer.text
    assert "amount" not in answer.text
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "<script" not in answer.text
    assert verbs(db) == []
    assert client.post(address).status_code == 200, "the looks have not used the link"


def test_a_link_acts_once_under_the_name_of_its_channel(
    client: TestClient, db: Database, link: Link, incident_id: int
) -> None:
    address = link()
    done = client.post(address)
    assert (done.status_code, "Done: acknowledge" in done.text) == (200, True)
    assert verbs(db) == [("acknowledge", "mail:post")]
    with db.write() as conn:
        conn.execute(sa.text("UPDATE incidents SET acknowledged_until_us = NULL"))
    for answer in (client.post(address), client.get(address)):
        assert (answer.status_code, "used already" in answer.text) == (410, True)
    assert len(verbs(db)) == 1, "the replay has changed nothing, although the verb would be possible again"


def test_concurrent_uses_act_once(client: TestClient, db: Database, link: Link) -> None:
    address = link(verb="acknowledge")
    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(lambda _: client.post(address).status_code, range(8)))
    assert statuses == [200] + [410] * 7
    assert verbs(db) == [("acknowledge", "mail:post")]


def test_forged_and_foreign_links_act_not(client: TestClient, db: Database, link: Link, incident_id: int) -> None:
    valid = link().rpartition("/")[2]
    other = link(verb="false_alarm").rpartition("/")[2]
    mixed = f"{other.partition('.')[0]}.{valid.partition('.')[2]}"
    forged = ["x", valid[:-1], mixed, link(secret="w" * 40).rpartition("/")[2]]
    foreign = [link(database_id="another"), link(incident_id=incident_id + 1), link(verb="accept")]
    for address in [*(f"/links/{token}" for token in forged), *foreign]:
        for answer in (client.get(address), client.post(address)):
            assert (answer.status_code, "not valid" in answer.text) == (404, True)
    assert verbs(db) == []


def test_an_expired_link_acts_not(client: TestClient, db: Database, link: Link) -> None:
    address = link(expires_at_us=db.now_us() - 1)
    for answer in (client.get(address), client.post(address)):
        assert (answer.status_code, "has expired" in answer.text) == (410, True)
    assert verbs(db) == []


def test_the_verb_of_the_link_is_applied_and_no_other(client: TestClient, db: Database, link: Link) -> None:
    answer = client.post(link(verb="acknowledge") + "?verb=accept", data={"verb": "accept"})
    assert answer.status_code == 200
    assert verbs(db) == [("acknowledge", "mail:post")]


def test_the_former_secret_is_valid_while_it_is_replaced(client: TestClient, db: Database, link: Link) -> None:
    assert client.post(link(secret=FORMER)).status_code == 200
    assert verbs(db) == [("acknowledge", "mail:post")]


def test_a_link_to_an_incident_in_another_state_says_so_and_stays_valid(
    client: TestClient, db: Database, link: Link
) -> None:
    address = link(verb="acknowledge")
    with db.write() as conn:
        conn.execute(sa.text("UPDATE incidents SET status = 'resolved', resolved_at_us = opened_at_us"))
    refused = client.post(address)
    assert (refused.status_code, "not possible" in refused.text) == (409, True)
    with db.write() as conn:
        conn.execute(sa.text("UPDATE incidents SET status = 'open', resolved_at_us = NULL"))
    assert client.post(address).status_code == 200


def test_without_a_secret_no_link_is_valid(db: Database, upgraded_url: str, link: Link) -> None:
    context = ServerContext(make_settings(upgraded_url, link_secret=""))
    with TestClient(create_app(context), base_url="http://localhost:8080") as client:
        assert client.post(link()).status_code == 404
    context.close()
    assert verbs(db) == []


def test_a_browser_may_use_the_form_although_it_names_no_origin(client: TestClient, db: Database, link: Link) -> None:
    # Under `no-referrer` browsers send `Origin: null`.
    headers = {"Origin": "null", "Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
    assert client.post(link(), headers=headers).status_code == 200
    assert len(verbs(db)) == 1


def test_wrong_tokens_are_refused_quickly(client: TestClient, db: Database, link: Link) -> None:
    started_s = time.monotonic()
    assert {client.get(f"/links/{number}.x").status_code for number in range(50)} <= {404, 429}
    assert time.monotonic() - started_s < 5


def test_a_false_alarm_before_its_window_has_ended_is_refused_and_may_be_given_later(
    client: TestClient, db: Database, link: Link
) -> None:
    address = link(verb="false_alarm")
    early = client.post(address)
    assert (early.status_code, "still open" in early.text) == (409, True)
    with db.write() as conn:
        conn.execute(
            sa.text(
                "INSERT INTO windows (stream_id, window_start_us, window_end_us, events, outliers, late, dead,"
                " judged_at_us) VALUES (1, :start, :end, 0, 0, 0, 0, 1)"
            ),
            {"start": T0, "end": T0 + MINUTE},
        )
    assert client.post(address).status_code == 200
    assert verbs(db) == [("false_alarm", "mail:post")]
