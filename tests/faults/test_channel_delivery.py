"""The daemon is killed around deliveries to several channels: nothing is lost, in order, under equal keys."""

import json
import os
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from tests.daemon.process import DaemonProcess
from tests.daemon.stored import StoredRows
from tests.faults.conftest import FilledTopic
from tests.faults.test_delivery import bursts, count_notifications, settings
from tests.servers.receiver import ReceivedRequest, RespondReaction, WebhookReceiver

__all__ = ["bursts"]
pytestmark = [pytest.mark.fault, pytest.mark.long, pytest.mark.timeout(600)]

Run = Callable[..., DaemonProcess]
_KILLS = 4


def channels(receiver: WebhookReceiver, topic: str) -> dict[str, dict[str, Any]]:
    base = f"http://127.0.0.1:{receiver.port}"
    return {
        "ops": {"type": "webhook", "url": receiver.url, "timeout": "1s"},
        "am": {"type": "alertmanager", "urls": [base], "interval": "2s", "timeout": "1s"},
        "pd": {"type": "pagerduty", "routing_key": "0123456789", "url": f"{base}/v2/enqueue", "timeout": "1s"},
        "bus": {"type": "kafka", "topic": topic, "timeout": "10s"},
    }


def test_daemon_that_is_killed_at_deliveries_loses_nothing_and_keeps_order_and_keys(
    bursts: FilledTopic,
    stored_in_postgres: StoredRows,
    run_daemon: Run,
) -> None:
    stored, topic = stored_in_postgres, f"incidents-{os.urandom(4).hex()}"
    with WebhookReceiver() as receiver:
        daemons: list[DaemonProcess] = []
        kills = iter(range(_KILLS))

        def react(_: ReceivedRequest) -> RespondReaction:
            # Between the delivery and its record: the daemon dies before it reads the answer.
            if len(receiver.requests) % 3 == 0 and daemons and next(kills, None) is not None:
                daemons[0].kill()
            return RespondReaction(status=202)

        receiver.react = react
        given = settings(bursts, stored.url, receiver.url)
        given["notify"]["channels"] = names = channels(receiver, topic)
        daemons.append(run_daemon(given))
        for _ in range(_KILLS):
            assert daemons[0].wait() < 0, "the receiver kills the daemon"
            daemons[0].start()
        daemons[0].wait_until(
            lambda: (
                stored.is_settled(bursts.records)
                and all(count_notifications(stored, "pending", name) == 0 for name in names)
            ),
            "all messages are delivered",
        )
        assert daemons[0].terminate() == 0
        requests = list(receiver.requests)
    for name in names:
        assert count_notifications(stored, "dead", name) == 0
        assert count_notifications(stored, "delivered", name) >= 3
    events: dict[str, list[str]] = defaultdict(list)
    for request in requests:
        if "/v2/enqueue" in request.line:
            event = json.loads(request.body)
            events[event["dedup_key"]].append(event["event_action"])
    incidents = {row[0] for row in stored.rows("SELECT id FROM incidents")}
    assert {int(key.rpartition("/")[2]) for key in events} == incidents, "one key per incident, and none is lost"
    assert len({key.rpartition("/")[0] for key in events}) == 1
    assert all(actions[0] == "trigger" for actions in events.values())
    assert {int(labels["incident"]) for labels, _ in alerts(requests)} == incidents
    first: dict[str, bool] = {}
    for labels, is_active in alerts(requests):
        first.setdefault(labels["incident"], is_active)
    assert all(first.values()), "no alert is resolved before it was active"


def alerts(requests: list[ReceivedRequest]) -> list[tuple[dict[str, str], bool]]:
    """Return the labels of all posted alerts, and whether each one ended after the request began."""
    posted = [each for request in requests if "/api/v2/alerts" in request.line for each in json.loads(request.body)]
    return [(each["labels"], each["annotations"]["transition"] != "resolved") for each in posted]
