"""The daemon is killed around deliveries to Slack and by SMTP: nothing is lost, in order, under equal ids."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.daemon.process import TIMEOUT_S, DaemonProcess
from tests.daemon.stored import StoredRows
from tests.faults.conftest import FilledTopic
from tests.faults.test_delivery import bursts, count_notifications, settings
from tests.servers.process import free_port
from tests.servers.receiver import ReceivedRequest, RespondReaction, WebhookReceiver
from tests.servers.slack import TOKEN, SlackWorkspace
from tests.servers.smtp import ReceivedMail, SmtpServer

__all__ = ["bursts"]
pytestmark = [pytest.mark.fault, pytest.mark.long, pytest.mark.timeout(600)]

Run = Callable[..., DaemonProcess]
_NAMES = ("chat", "hook", "post", "grouped")
_KILLS = 2
"""Kills in deliveries of each channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The ports of the receivers of all channels; a group of mails has a server of its own."""

    chat: int
    hook: int
    post: int
    grouped: int


def channels(ports: Ports) -> dict[str, dict[str, Any]]:
    chat = {"type": "slack", "token": TOKEN, "channel": "#ops", "api_url": f"http://127.0.0.1:{ports.chat}/api"}
    hook = {"type": "slack", "webhook_url": f"http://127.0.0.1:{ports.hook}/services/x"}
    mail = {"type": "email", "tls": "none", "from": "outrider@example.org", "to": ["ops@example.org"]}
    return {
        "chat": chat | {"timeout": "3s"},
        "hook": hook | {"timeout": "3s"},
        "post": mail | {"server": f"smtp://127.0.0.1:{ports.post}", "timeout": "3s"},
        "grouped": mail | {"server": f"smtp://127.0.0.1:{ports.grouped}", "timeout": "3s", "group_wait": "2s"},
    }


@dataclass(slots=True, kw_only=True)
class Receivers:
    """The running receivers; `on_delivery` is called with the channel before each answer."""

    workspace: SlackWorkspace
    hook: WebhookReceiver
    post: SmtpServer
    grouped: SmtpServer
    on_delivery: Callable[[str], None] = lambda _: None


@contextmanager
def receivers(ports: Ports) -> Iterator[Receivers]:
    with ExitStack() as stack:
        made = Receivers(
            workspace=SlackWorkspace(stack.enter_context(WebhookReceiver(port=ports.chat))),
            hook=stack.enter_context(WebhookReceiver(port=ports.hook)),
            post=stack.enter_context(SmtpServer(port=ports.post)),
            grouped=stack.enter_context(SmtpServer(port=ports.grouped)),
        )

        def answer_hook(_: ReceivedRequest) -> RespondReaction:
            made.on_delivery("hook")
            return RespondReaction(status=200, body=b"ok")

        made.hook.react = answer_hook
        made.workspace.before_answer = lambda _: made.on_delivery("chat")
        made.post.before_answer = lambda _: made.on_delivery("post")
        made.grouped.before_answer = lambda _: made.on_delivery("grouped")
        yield made


def all_told(stored: StoredRows, topic: FilledTopic) -> bool:
    return stored.is_settled(topic.records) and all(
        count_notifications(stored, "pending", name) == 0 for name in _NAMES
    )


def free_ports() -> Ports:
    return Ports(chat=free_port(), hook=free_port(), post=free_port(), grouped=free_port())


def test_kills_between_delivery_and_record_lose_nothing_and_repeat_under_equal_ids(
    bursts: FilledTopic, stored_in_postgres: StoredRows, run_daemon: Run
) -> None:
    stored, ports, kills = stored_in_postgres, free_ports(), Counter[str]()
    with receivers(ports) as running:
        given = settings(bursts, stored.url, "http://127.0.0.1:9/unused")
        given["notify"]["channels"] = channels(ports)
        daemon, lock = run_daemon(given), threading.Lock()

        def kill(channel: str) -> None:
            # The receiver has taken the message; the daemon dies before it reads the answer.
            with lock:
                if daemon.is_running and kills[channel] < _KILLS:
                    kills[channel] += 1
                    daemon.kill()

        running.on_delivery = kill
        until_s = time.monotonic() + 3 * TIMEOUT_S
        while time.monotonic() < until_s and (kills.total() < _KILLS * len(_NAMES) or not all_told(stored, bursts)):
            with lock:
                if not daemon.is_running:
                    daemon.start()
            daemon.runs_for(0.2)
        assert daemon.terminate() == 0, daemon.tail()
    assert kills == dict.fromkeys(_NAMES, _KILLS)
    verify(stored, running, deaths=kills.total())


def test_kill_between_commit_and_delivery_delays_all_messages_to_the_next_run(
    bursts: FilledTopic, stored_in_sqlite: StoredRows, run_daemon: Run
) -> None:
    stored, ports = stored_in_sqlite, free_ports()
    given = settings(bursts, stored.url, "http://127.0.0.1:9/unused")
    given["notify"]["channels"] = channels(ports)
    daemon = run_daemon(given)
    daemon.wait_until(lambda: stored.is_settled(bursts.records), "the topic is drained while no receiver listens")
    daemon.kill()
    assert all(count_notifications(stored, "pending", name) >= 3 for name in _NAMES)
    with receivers(ports) as running:
        daemon.start()
        daemon.wait_until(lambda: all_told(stored, bursts), "all messages are delivered")
        assert daemon.terminate() == 0
    verify(stored, running, deaths=0)


def verify(stored: StoredRows, running: Receivers, *, deaths: int) -> None:
    """Verify that all channels have told each transition, in order.

    Each death of the daemon may repeat one message of each channel: the others may be in delivery as well.
    """
    for name in _NAMES:
        assert count_notifications(stored, "dead", name) == 0
        assert count_notifications(stored, "delivered", name) >= 3
    verify_mails(stored, running.post, "post", deaths)
    verify_groups(stored, running.grouped, deaths)
    verify_bot(stored, running.workspace, deaths)
    (transitions,) = stored.rows("SELECT count(*) FROM notifications WHERE channel = 'hook'")[0]
    assert transitions <= len(running.hook.requests) <= transitions + deaths


def verify_mails(stored: StoredRows, server: SmtpServer, channel: str, deaths: int) -> None:
    rows = stored.rows(f"SELECT incident_id, id FROM notifications WHERE channel = '{channel}' ORDER BY transition_id")
    arrived = [id_of(mail) for mail in server.mails]
    assert set(arrived) == {row[1] for row in rows}
    assert len(arrived) <= len(rows) + deaths
    verify_repetitions(server)
    for incident in {row[0] for row in rows}:
        positions = [arrived.index(row[1]) for row in rows if row[0] == incident]
        assert positions == sorted(positions), "the transitions of an incident arrive in order"


def verify_groups(stored: StoredRows, server: SmtpServer, deaths: int) -> None:
    """Verify that each incident opens in one mail, which comes before its other mails."""
    first_seen: dict[str, list[str]] = defaultdict(list)
    for mail in server.mails:
        for root in str(mail.content["References"]).split():
            first_seen[root].append(id_of(mail))
    opened = stored.rows(
        "SELECT n.incident_id, COALESCE(n.group_id, n.id) FROM notifications n JOIN transitions t "
        "ON t.id = n.transition_id WHERE n.channel = 'grouped' AND t.transition = 'opened'"
    )
    roots = {int(root.partition("-")[2].partition(".")[0]): ids for root, ids in first_seen.items()}
    assert {incident: ids[0] for incident, ids in roots.items()} == dict(opened)
    assert len(server.mails) - len({id_of(mail) for mail in server.mails}) <= deaths
    verify_repetitions(server)


def verify_repetitions(server: SmtpServer) -> None:
    contents: dict[str, set[bytes]] = defaultdict(set)
    for mail in server.mails:
        contents[id_of(mail)].add(mail.raw)
    assert {len(each) for each in contents.values()} == {1}, "a repeated mail is the same to the byte"


def id_of(mail: ReceivedMail) -> str:
    return str(mail.content["Message-ID"]).strip("<>").partition("@")[0]


def verify_bot(stored: StoredRows, workspace: SlackWorkspace, deaths: int) -> None:
    """Verify one message per incident in its last state, beside those that were posted before a kill."""
    messages: dict[str, list[str]] = defaultdict(list)
    for message in workspace.messages.values():
        incident = str(message["blocks"][-1]["elements"][0]["text"]).split("Incident ")[1].split(",")[0].strip("|>")
        messages[incident].append(str(message["text"]))
    states = {str(row[0]): row[1] for row in stored.rows("SELECT id, status FROM incidents")}
    assert messages.keys() == states.keys(), "no incident is lost"
    assert sum(len(each) for each in messages.values()) <= len(states) + deaths
    for incident, texts in messages.items():
        assert (": resolved:" in texts[-1]) == (states[incident] == "resolved"), "the last message is kept up to date"
    assert all(calls != "chat.update" for calls in workspace.calls[:1]), "no change before the message"
