"""People mute messages from the page of an incident, and end mutes there."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from config.time_format import HOUR_US
from storage.control.mutes import MutableMessage, MuteStore, NewMute, StoredMute, find_mute
from storage.database.engine import Database
from tests.unit.monitor.server.apps import TOKENS, VIEWER, bearer, build_settings, empty_database, open_client
from tests.unit.monitor.server.pages.stored_incidents import NUMBERS, store_incident, store_stream

BROWSER = {"Accept": "text/html"}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with Database(empty_database(tmp_path)) as db:
        yield db


@pytest.fixture
def incident(db: Database) -> int:
    return store_incident(db, store_stream(db), "spike", NUMBERS["spike"])


@pytest.fixture
def client(db: Database, tmp_path: Path) -> Iterator[TestClient]:
    client = open_client(build_settings(f"sqlite:///{tmp_path / 'o.db'}"), headers=BROWSER)
    yield client
    client.app.state.context.close()  # type: ignore[attr-defined]


def show(client: TestClient, incident: int) -> str:
    text = client.get(f"/incidents/{incident}?panel=mutes").text
    return html.unescape(text[text.index('data-panel="mutes"') :])


def post(client: TestClient, incident: int, path: str = "", **fields: str) -> int:
    found = re.search('name="csrf" value="([^"]+)"', show(client, incident))
    assert found is not None
    answer = client.post(f"/incidents/{incident}/mutes{path}", data={"csrf": found[1]} | fields)
    if answer.status_code == 303:
        assert answer.headers["location"] == f"/incidents/{incident}#h-mutes"
    return answer.status_code


def find(db: Database, message: MutableMessage) -> StoredMute | None:
    store = MuteStore(db)
    return find_mute(store.read_all(), message, now_us=store.now_us(), timezone="UTC")


@pytest.mark.parametrize(
    ("of", "says", "other"),
    [
        ("incident", "This incident</strong> until", False),
        ("kind", "Each spike of payments</strong> until", True),
        ("key:T-118", "All messages with the key T-118 of payments</strong> until", True),
    ],
)
def test_a_mute_of_the_page_holds_back_the_messages_that_it_names(
    client: TestClient, db: Database, incident: int, of: str, says: str, *, other: bool
) -> None:
    assert post(client, incident, of=of, note="<b>known</b>", **{"for": "8 h"}) == 303
    (mute,) = MuteStore(db).read_all()
    assert (mute.ends_at_us - mute.starts_at_us, mute.who, mute.note) == (8 * HOUR_US, "local", "<b>known</b>")
    text = show(client, incident)
    assert says in text
    assert "<b>known" not in client.get(f"/incidents/{incident}").text
    own = MutableMessage(stream="payments", kind="spike", incident_id=incident, keys=frozenset({"T-118"}))
    assert find(db, own) == mute
    same_kind = MutableMessage(stream="payments", kind="spike", incident_id=incident + 1, keys=frozenset({"T-118"}))
    assert (find(db, same_kind) is not None) == other
    elsewhere = MutableMessage(stream="trips", kind="spike", incident_id=incident + 1, keys=frozenset({"T-118"}))
    assert find(db, elsewhere) is None


def test_a_mute_is_ended_from_the_page(client: TestClient, db: Database, incident: int) -> None:
    assert post(client, incident, of="incident", **{"for": "2 h"}) == 303
    (mute,) = MuteStore(db).read_all()
    assert f'aria-label="End mute {mute.id}"' in show(client, incident)
    assert post(client, incident, f"/{mute.id}/end") == 303
    assert "No mute is in force on its messages" in show(client, incident)
    assert post(client, incident, "/999/end") == 404


def test_a_mute_of_one_of_several_keys_says_that_it_waits_for_the_others(db: Database, client: TestClient) -> None:
    keys = [{"key": key, "events": 40, "outliers": 30} for key in ("a", "b")]
    incident = store_incident(db, store_stream(db), "spike", NUMBERS["spike"] | {"keys": keys})
    waits = "until each of its keys is muted"
    assert post(client, incident, of="key:a", **{"for": "1 d"}) == 303
    assert waits in show(client, incident)
    assert post(client, incident, of="key:b", **{"for": "1 d"}) == 303
    assert waits not in show(client, incident)


def test_mutes_of_other_messages_are_not_listed(client: TestClient, db: Database, incident: int) -> None:
    store = MuteStore(db)
    now_us, other = store.now_us(), store_incident(db, store_stream(db, "trips"), "spike", None)
    for values in ({"kind": "drift"}, {"key": "other"}, {"stream": "trips"}, {"incident_id": other}):
        store.add(NewMute(starts_at_us=now_us, ends_at_us=now_us + HOUR_US, who="anna", **values))  # type: ignore[arg-type]
    assert "No mute is in force on its messages" in show(client, incident)


@pytest.mark.parametrize("fields", [{}, {"of": "key:other", "for": "2 h"}, {"of": "incident", "for": "2 years"}])
def test_a_form_that_names_no_messages_or_length_adds_nothing(
    client: TestClient, db: Database, incident: int, fields: dict[str, str]
) -> None:
    assert post(client, incident, **fields) == 422
    assert MuteStore(db).read_all() == []


def test_a_mute_needs_the_token_of_the_page_and_the_scope_act(
    client: TestClient, db: Database, tmp_path: Path, incident: int
) -> None:
    path, fields = f"/incidents/{incident}/mutes", {"of": "incident", "for": "2 h"}
    assert client.post(path, data=fields).status_code == 403
    assert client.post(f"{path}/1/end").status_code in {403, 415}
    viewer = open_client(build_settings(f"sqlite:///{tmp_path / 'o.db'}", {"tokens": TOKENS}), headers=bearer(VIEWER))
    assert viewer.post(path, data=fields).status_code == 403
    assert "<form" not in viewer.get(f"/incidents/{incident}?panel=mutes").text.partition('data-panel="mutes"')[2]
    assert MuteStore(db).read_all() == []
    viewer.app.state.context.close()  # type: ignore[attr-defined]
