"""The Alertmanager channel with a real Alertmanager, which forgets its alerts when it is killed."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from monitor.notify.sender import NotificationSender
from storage.database.engine import Database
from tests.integration.control.incident_life import IncidentLife
from tests.integration.control.test_channels import make_sender
from tests.integration.control.worker_bench import open_stream, wait_until
from tests.servers.alertmanager import AlertmanagerServer, find_alertmanager
from tests.servers.receiver import WebhookReceiver

pytestmark = pytest.mark.skipif(
    find_alertmanager() is None, reason="Alertmanager cannot be had: install the package prometheus-alertmanager"
)


class Monitored:
    """An Alertmanager that sends to a receiver, and the sender of a daemon with an open incident."""

    def __init__(self, db: Database, server: AlertmanagerServer, receiver: WebhookReceiver) -> None:
        self.server, self.receiver = server, receiver
        self.life = IncidentLife(db, open_stream(db, partitions=1), ["am"])
        self.life.fire()
        am = {"type": "alertmanager", "urls": [server.url], "interval": "1s"}
        self.sender: NotificationSender = make_sender(db, am=am)
        self.sender.start()

    def statuses(self) -> list[str]:
        """Return the status of each notification of Alertmanager."""
        return [json.loads(each.body)["status"] for each in self.receiver.requests]

    def fingerprints(self) -> set[str]:
        """Return the active alerts."""
        found: list[dict[str, Any]] = self.server.alerts()
        return {each["fingerprint"] for each in found}


@pytest.fixture
def monitored(sqlite_db: Database) -> Iterator[Monitored]:
    with WebhookReceiver() as receiver, AlertmanagerServer(receiver.url) as server:
        made = Monitored(sqlite_db, server, receiver)
        yield made
        made.sender.stop(5.0)


def test_alert_is_back_after_alertmanager_was_killed_and_resolves_at_the_end(monitored: Monitored) -> None:
    wait_until(lambda: len(monitored.fingerprints()) == 1)
    before = monitored.fingerprints()
    monitored.server.kill()
    monitored.server.start()
    wait_until(lambda: monitored.fingerprints() == before)
    assert "resolved" not in monitored.statuses()
    monitored.life.rest(3)
    wait_until(lambda: "resolved" in monitored.statuses())
    assert monitored.statuses()[0] == "firing"
    assert monitored.fingerprints() == set()


@pytest.mark.long
def test_alert_of_a_monitor_that_died_ends_without_a_resolution_of_the_incident(monitored: Monitored) -> None:
    wait_until(lambda: len(monitored.fingerprints()) == 1)
    for each in monitored.sender._senders:
        each.abandon()
    monitored.sender.stop(5.0)
    wait_until(lambda: monitored.fingerprints() == set())
    wait_until(lambda: monitored.statuses()[-1:] == ["resolved"])
