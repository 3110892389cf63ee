"""Messages of chats and uses of signed links, on both databases: read, replaced, used once, deleted."""

import sqlalchemy as sa

from config.time_format import DAY_US
from storage.control.posted_messages import PostedMessage, PostedMessageStore
from storage.control.used_links import LinkUse, delete_used_links, is_link_used, record_link_use
from storage.database.engine import Database
from tests.integration.control.worker_bench import T0

POSTED = PostedMessage(target="#ops", place="C1", reference="17.1", notification_id="n1")


def test_the_message_of_an_incident_is_read_and_replaced(db: Database, stream_id: int) -> None:
    with db.write() as conn:
        conn.execute(
            sa.text(
                "INSERT INTO incidents (stream_id, kind, severity, status, window_start_us, opened_at_us, last_told_us,"
                " clean_windows, windows_fired, summary) VALUES (:s, 'spike', 'warning', 'open', 0, 0, 0, 0, 1, '')"
            ),
            {"s": stream_id},
        )
        incident_id = conn.execute(sa.text("SELECT max(id) FROM incidents")).scalar_one()
    store = PostedMessageStore(db)
    assert store.find("chat", incident_id) is None
    store.record("chat", incident_id, POSTED)
    store.record("other", incident_id, POSTED)
    changed = PostedMessage(target="#ops", place="C1", reference="17.2", notification_id="n2")
    store.record("chat", incident_id, changed)
    assert store.find("chat", incident_id) == changed
    assert store.find("other", incident_id) == POSTED


def test_a_link_is_used_once_and_forgotten_a_day_after_its_expiry(db: Database) -> None:
    use = LinkUse(id="a" * 64, expires_at_us=T0)
    assert not is_link_used(db, use.id)
    with db.write() as conn:
        assert record_link_use(conn, use, T0 - 1)
        assert not record_link_use(conn, use, T0)
    assert is_link_used(db, use.id)
    delete_used_links(db, T0 + DAY_US, lambda: False)
    assert is_link_used(db, use.id)
    delete_used_links(db, T0 + DAY_US + 1, lambda: False)
    assert not is_link_used(db, use.id)
