"""All channels together: repetition of open incidents, independence, and a signal that comes and goes."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import sqlalchemy as sa

from config.settings import Settings
from monitor.incidents.lifecycle import Severity
from monitor.notify.sender import NotificationSender
from storage.control.outbox import Outbox
from storage.database.engine import Database
from storage.database.tables import leases, notifications
from storage.queries.told_incidents import ToldIncident, read_told_incidents, read_told_transitions
from tests.integration.control.incident_life import IncidentLife
from tests.integration.control.worker_bench import SECOND, fetch_rows, wait_until
from tests.servers.receiver import HangReaction, ReceivedRequest, RespondReaction, WebhookReceiver

RECENT_US = 300 * SECOND


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


def base(receiver: WebhookReceiver) -> str:
    return f"http://127.0.0.1:{receiver.port}"


def alertmanager(receiver: WebhookReceiver, **settings: Any) -> dict[str, Any]:
    return {"type": "alertmanager", "urls": [base(receiver)], "interval": "1s"} | settings


def pagerduty(receiver: WebhookReceiver, **settings: Any) -> dict[str, Any]:
    return {"type": "pagerduty", "routing_key": "0123456789", "url": f"{base(receiver)}/v2/enqueue"} | settings


def make_sender(db: Database, **channels: dict[str, Any]) -> NotificationSender:
    streams = {"payments": {"source": {"type": "synthetic"}}}
    settings = Settings.model_validate({"streams": streams, "notify": {"channels": channels}})
    return NotificationSender.from_settings(settings, Outbox(db))


def deliver_all(db: Database, channel: str) -> None:
    """Record all messages of a channel as delivered."""
    outbox = Outbox(db)
    while (message := outbox.claim(channel, SECOND)) is not None:
        outbox.mark_delivered(message)


def told(db: Database, channel: str = "am", after_id: int = 0, limit: int = 100) -> list[ToldIncident]:
    _, incidents = read_told_incidents(db, channel, recent_us=RECENT_US, after_id=after_id, limit=limit)
    return incidents


def count_pending(db: Database, channel: str) -> int:
    query = "SELECT count(*) FROM notifications WHERE channel = :channel AND state = 'pending'"
    with db.read() as conn:
        return int(conn.execute(sa.text(query), {"channel": channel}).scalar_one())


def test_incident_is_repeated_only_with_the_transitions_that_were_delivered(db: Database, stream_id: int) -> None:
    life = IncidentLife(db, stream_id, ["am", "other"])
    life.fire()
    deliver_all(db, "other")
    assert told(db) == [], "its opening is still pending"
    deliver_all(db, "am")
    life.fire(Severity.CRITICAL)
    (incident,) = told(db)
    assert [each.transition for each in incident.transitions] == ["opened"]
    assert (incident.latest.stream, incident.latest.severity) == ("payments", "warning")
    deliver_all(db, "am")
    (incident,) = told(db)
    assert [(each.transition, each.severity) for each in incident.transitions] == [
        ("opened", "warning"),
        ("escalated", "critical"),
    ]
    before = read_told_transitions(db, "am", incident.incident_id, incident.latest.sequence)
    assert [each.transition for each in before] == ["opened"]
    assert told(db, after_id=incident.incident_id) == []


def test_resolved_incident_is_repeated_for_a_while_after_its_delivery(db: Database, stream_id: int) -> None:
    life = IncidentLife(db, stream_id, ["am"])
    life.fire()
    life.rest(3)
    deliver_all(db, "am")
    (incident,) = told(db)
    assert [each.transition for each in incident.transitions] == ["opened", "resolved"]
    with db.write() as conn:
        past = notifications.c.delivered_at_us - RECENT_US
        conn.execute(sa.update(notifications).where(notifications.c.channel == "am").values(delivered_at_us=past))
    assert told(db) == []


def test_muted_and_skipped_incidents_are_not_repeated(db: Database, stream_id: int) -> None:
    IncidentLife(db, stream_id, ["am"]).fire()
    for state in ("muted", "skipped"):
        with db.write() as conn:
            conn.execute(sa.update(notifications).values(state=state))
        assert told(db) == []


def test_message_that_was_given_up_is_repeated_while_the_incident_is_open(db: Database, stream_id: int) -> None:
    IncidentLife(db, stream_id, ["am"]).fire()
    outbox = Outbox(db)
    message = outbox.claim("am", SECOND)
    assert message is not None
    outbox.mark_failed(message, "away", lambda _: None, reason="connection")
    assert fetch_rows(db, "SELECT state, reason FROM notification_history WHERE channel = 'am'") == [
        ("dead", "connection")
    ]
    assert len(told(db)) == 1


def test_exactly_one_of_two_daemons_repeats_and_the_other_goes_on_after_its_death(
    db: Database, stream_id: int, receiver: WebhookReceiver
) -> None:
    IncidentLife(db, stream_id, ["am"]).fire()
    with WebhookReceiver() as second_receiver:
        first = make_sender(db, am=alertmanager(receiver))
        first.start()
        wait_until(lambda: len(receiver.requests) >= 2)
        second = make_sender(db, am=alertmanager(second_receiver))
        second.start()
        seen = len(receiver.requests)
        wait_until(lambda: len(receiver.requests) >= seen + 3)
        assert second_receiver.requests == []
        # As after kill -9: the lease is not released, and expires.
        for each in first._senders:
            each.abandon()
        with db.write() as conn:
            conn.execute(sa.update(leases).values(expires_at_us=0))
        wait_until(lambda: len(second_receiver.requests) >= 2)
        second.stop(5.0)
        first.stop(5.0)
    (alert,) = json.loads(second_receiver.requests[-1].body)
    assert (alert["labels"]["kind"], alert["labels"]["severity"]) == ("spike", "warning")


def test_daemon_that_stops_releases_the_channel_at_once(
    db: Database, stream_id: int, receiver: WebhookReceiver
) -> None:
    # A name of its own: a thread of another test that hangs in a request may still hold the lease of its channel.
    IncidentLife(db, stream_id, ["am_released"]).fire()
    first = make_sender(db, am_released=alertmanager(receiver))
    first.start()
    wait_until(lambda: len(receiver.requests) >= 1)
    first.stop(5.0)
    seen = len(receiver.requests)
    second = make_sender(db, am_released=alertmanager(receiver))
    second.start()
    wait_until(lambda: len(receiver.requests) > seen)
    second.stop(5.0)


def test_sick_channels_delay_no_other_channel_by_more_than_a_second(db: Database, stream_id: int) -> None:
    with ExitStack() as stack:
        hanging, failing, healthy = (stack.enter_context(WebhookReceiver()) for _ in range(3))
        hanging.react = lambda _: HangReaction()
        failing.react = lambda _: RespondReaction(status=503)
        channels = {
            "am_hangs": alertmanager(hanging),
            "pd_hangs": pagerduty(hanging),
            "hook_hangs": {"type": "webhook", "url": hanging.url},
            "hook_fails": {"type": "webhook", "url": failing.url},
            "am": alertmanager(healthy),
            "pd": pagerduty(healthy),
            "hook": {"type": "webhook", "url": healthy.url},
        }
        life = IncidentLife(db, stream_id, list(channels))
        sender = make_sender(db, **channels)
        sender.start()
        life.fire()
        wait_until(lambda: len(hanging.requests) >= 3)
        told_at_s = time.monotonic()
        seen = len(healthy.requests)
        life.fire(Severity.CRITICAL)
        wait_until(lambda: all(count_pending(db, name) == 0 for name in ("am", "pd", "hook")))
        # A sender looks for messages once a second; the rest is the delay.
        assert time.monotonic() - told_at_s < 1.0 + 1.0
        assert len(healthy.requests) >= seen + 3
        assert count_pending(db, "hook_hangs") == 2
    # The receivers have ended all requests: no thread takes a lease in the database of the next test.
    sender.stop(30.0)
    assert not any(each._threads for each in sender._senders)


def test_signal_that_flaps_100_times_in_an_hour_is_one_incident_and_three_messages_per_channel(
    db: Database, stream_id: int, receiver: WebhookReceiver
) -> None:
    channels = {
        "am": alertmanager(receiver, interval="1h"),
        "pd": pagerduty(receiver),
        "hook": {"type": "webhook", "url": receiver.url},
    }
    life = IncidentLife(db, stream_id, list(channels))
    for _ in range(100):
        life.fire()
        life.rest(3)
    sender = make_sender(db, **channels)
    sender.start()
    wait_until(lambda: all(count_pending(db, name) == 0 for name in channels))
    sender.stop(5.0)
    assert fetch_rows(db, "SELECT count(*) FROM incidents") == [(1,)]
    messages = fetch_rows(db, "SELECT channel, transition FROM notification_history ORDER BY channel, created_at_us")
    for channel in ("log", *channels):
        assert [row[1] for row in messages if row[0] == channel] == ["opened", "resolved", "reopened"]
    assert count_posts(receiver.requests) == {"am": 3, "pd": 3, "hook": 3}
    actions = [json.loads(each.body)["event_action"] for each in receiver.requests if "/v2/enqueue" in each.line]
    assert actions == ["trigger", "resolve", "trigger"]
    life.rest(200)
    states = fetch_rows(db, "SELECT transition FROM notification_history WHERE channel = 'pd' ORDER BY created_at_us")
    assert [row[0] for row in states] == ["opened", "resolved", "reopened", "resolved"]


def count_posts(requests: list[ReceivedRequest]) -> Counter[str]:
    """Return the number of requests by channel."""
    places = {"/api/v2/alerts": "am", "/v2/enqueue": "pd", "/hook": "hook"}
    return Counter(next(name for place, name in places.items() if place in each.line) for each in requests)
