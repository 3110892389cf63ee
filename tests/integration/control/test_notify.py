"""Notifications from the outbox to the channels: one id per message, in order, none lost."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
import sqlalchemy as sa

from config.settings import Settings
from monitor.notify.channel import Channel, LogChannel
from monitor.notify.channels import build_channels
from monitor.notify.delivery import DeliveryResult, FailureReason, delivered, refuse, retry
from monitor.notify.sender import NotificationSender, deliver_next
from monitor.notify.webhook import Webhook
from storage.control.outbox import Message, Outbox
from storage.control.posted_messages import PostedMessageStore
from storage.control.records import Judgement, WindowFacts
from storage.control.windows import WindowStore
from storage.database.engine import Database
from storage.database.tables import notifications, transitions
from tests.integration.control.source_commits import (
    CommittingSource,
    judge_stored_window,
    judged_window_row,
    opened_incident,
    run_concurrently,
)
from tests.integration.control.worker_bench import MINUTE, SECOND, T0, count_rows, fetch_rows, seal, wait_until
from tests.servers.receiver import HangReaction, RespondReaction, WebhookReceiver
from tests.servers.slack import TOKEN, SlackWorkspace

DAY_US = 86_400 * SECOND
CLAIM_US = 60 * SECOND


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


NotifyIncidents = Callable[..., None]


@pytest.fixture
def notify_incidents(db: Database, stream_id: int, source: CommittingSource, control: WindowStore) -> NotifyIncidents:
    """Return a function that opens incidents of these kinds for these channels."""

    def judge(*channels: str, kinds: tuple[str, ...] = ("spike",)) -> None:
        source.commit(source.part())
        seal(db, stream_id, T0 + MINUTE)

        def decide(facts: WindowFacts) -> Judgement:
            return Judgement(
                window=judged_window_row(facts), incidents=[opened_incident(facts, kind, channels) for kind in kinds]
            )

        assert judge_stored_window(control, stream_id, T0, decide)

    return judge


def settings_with(channels: dict[str, dict[str, object]]) -> Settings:
    """Return a configuration with these channels."""
    streams = {"payments": {"source": {"type": "synthetic"}}}
    return Settings.model_validate({"streams": streams, "notify": {"channels": channels}})


def claim_all(outbox: Outbox, channel: str) -> list[Message]:
    """Claim all that is due on a channel."""
    claimed = []
    while (message := outbox.claim(channel, CLAIM_US)) is not None:
        claimed.append(message)
    return claimed


def notification_states(db: Database) -> list[tuple[object, ...]]:
    return fetch_rows(
        db, "SELECT channel, state, attempts, last_error FROM notification_history ORDER BY 1, created_at_us"
    )


def make_due(db: Database, *, age_us: int = 0) -> None:
    """Make all pending messages due and older by `age_us`."""
    with db.write() as conn:
        older = {"next_attempt_at_us": 0, "created_at_us": notifications.c.created_at_us - age_us}
        conn.execute(sa.update(notifications).where(notifications.c.state == "pending").values(older))


def test_a_message_from_before_the_clock_was_set_back_is_delivered_once(
    db: Database, notify_incidents: NotifyIncidents
) -> None:
    notify_incidents("ops")
    outbox = Outbox(db)
    with db.write() as conn:
        ahead = {name: notifications.c[name] + DAY_US for name in ("created_at_us", "next_attempt_at_us")}
        conn.execute(sa.update(notifications).values(ahead))
    (message,) = claim_all(outbox, "ops")
    wait_us = outbox.mark_failed(message, "away", lambda now_us: now_us + SECOND)
    assert wait_us == SECOND
    assert claim_all(outbox, "ops") == []


class ScriptedChannel(LogChannel):
    """A channel that returns scripted results, then delivers."""

    def __init__(self, *answers: DeliveryResult) -> None:
        self.answers = list(answers)
        self.sent: list[Message] = []

    def send(self, message: Message) -> DeliveryResult:
        self.sent.append(message)
        return self.answers.pop(0) if self.answers else delivered("ok")


UNAVAILABLE = retry(FailureReason.SERVER_ERROR, "answered 503")


def test_the_outbox_returns_due_messages_in_order_of_their_transitions(
    db: Database, notify_incidents: NotifyIncidents
) -> None:
    notify_incidents("ops", "log", kinds=("spike", "dead_letters", "gap"))
    outbox = Outbox(db)
    claimed = claim_all(outbox, "ops")
    assert [each.kind for each in claimed] == ["spike", "dead_letters", "gap"]
    first = claimed[0]
    assert (first.stream, first.transition, first.severity, first.window_start_us, first.details, first.attempt) == (
        "payments",
        "opened",
        "warning",
        T0,
        {"n": 1},
        1,
    )
    assert len({each.id for each in [*claimed, *claim_all(outbox, "log")]}) == 6
    assert outbox.count_pending() == 6


def test_a_claimed_message_is_not_claimed_again_before_its_lease_expires(
    db: Database, notify_incidents: NotifyIncidents
) -> None:
    notify_incidents("ops", kinds=("spike", "gap", "dead_letters"))
    outbox = Outbox(db)
    claimed = [each for each in run_concurrently(*[lambda: outbox.claim("ops", CLAIM_US)] * 4) if each is not None]
    claimed += claim_all(outbox, "ops")
    assert sorted(each.kind for each in claimed) == ["dead_letters", "gap", "spike"]
    make_due(db)
    assert [each.attempt for each in claim_all(outbox, "ops")] == [2, 2, 2]


class GroupingChannel(ScriptedChannel):
    """A channel that records the groups that it sends."""

    group_wait_us = MINUTE
    max_group = 50

    def __init__(self, *answers: DeliveryResult) -> None:
        super().__init__(*answers)
        self.groups: list[list[str]] = []

    def send(self, message: Message) -> DeliveryResult:
        return self.send_group([message])

    def send_group(self, messages: Sequence[Message]) -> DeliveryResult:
        self.groups.append([each.kind for each in messages])
        return super().send(messages[0])


def test_new_incidents_wait_and_are_sent_as_one_at_each_attempt(
    db: Database, notify_incidents: NotifyIncidents
) -> None:
    outbox, channel = Outbox(db), GroupingChannel(UNAVAILABLE)
    notify_incidents("ops", kinds=("spike", "gap", "drift"))
    assert not deliver_next(outbox, "ops", channel, DAY_US), "they wait"
    with db.write() as conn:
        oldest = sa.select(sa.func.min(notifications.c.transition_id)).scalar_subquery()
        is_oldest = notifications.c.transition_id == oldest
        older = {"created_at_us": notifications.c.created_at_us - 2 * MINUTE}
        conn.execute(sa.update(notifications).where(is_oldest).values(older))
    assert deliver_next(outbox, "ops", channel, DAY_US)
    make_due(db)
    # A daemon that is killed after the delivery leaves the claim: the same messages are sent again.
    claimed = outbox.claim_group("ops", CLAIM_US, wait_us=MINUTE, max_messages=2)
    assert [each.kind for each in claimed] == ["spike", "gap", "drift"]
    assert outbox.claim("ops", CLAIM_US) is None, "no process gets a part of the group"
    make_due(db)
    assert deliver_next(outbox, "ops", channel, DAY_US)
    assert channel.groups == [["spike", "gap", "drift"]] * 2
    assert {state for _, state, _, _ in notification_states(db)} == {"delivered"}


def test_group_without_a_wait_sends_each_incident_alone(db: Database, notify_incidents: NotifyIncidents) -> None:
    channel = GroupingChannel()
    channel.group_wait_us = 0
    notify_incidents("ops", kinds=("spike", "gap"))
    while deliver_next(Outbox(db), "ops", channel, DAY_US):
        pass
    assert channel.groups == [["spike"], ["gap"]]


def test_critical_incident_does_not_wait_and_takes_the_others_along(
    db: Database, notify_incidents: NotifyIncidents
) -> None:
    channel = GroupingChannel()
    notify_incidents("ops", kinds=("spike", "gap"))
    with db.write() as conn:
        newest = sa.select(sa.func.max(transitions.c.id)).scalar_subquery()
        conn.execute(sa.update(transitions).where(transitions.c.id == newest).values(severity="critical"))
    assert deliver_next(Outbox(db), "ops", channel, DAY_US)
    assert [set(group) for group in channel.groups] == [{"spike", "gap"}]


def test_concurrent_claims_of_groups_share_no_message(db: Database, notify_incidents: NotifyIncidents) -> None:
    notify_incidents("ops", kinds=("spike", "gap", "dead_letters", "drift"))
    make_due(db, age_us=2 * MINUTE)
    outbox = Outbox(db)
    claimed = run_concurrently(*[lambda: outbox.claim_group("ops", CLAIM_US, wait_us=MINUTE, max_messages=3)] * 4)
    ids = [each.id for group in claimed for each in group]
    assert len(ids) == len(set(ids))
    assert max(len(group) for group in claimed) <= 3


def test_transitions_of_an_incident_are_delivered_in_order_after_a_failure(
    db: Database, stream_id: int, source: CommittingSource, control: WindowStore, notify_incidents: NotifyIncidents
) -> None:
    notify_incidents("ops")
    ((incident,),) = fetch_rows(db, "SELECT id FROM incidents")
    source.commit(source.part(1))
    seal(db, stream_id, T0 + 2 * MINUTE)

    def resolve(facts: WindowFacts) -> Judgement:
        row = opened_incident(facts, channels=("ops",))
        assert row.transition is not None
        transition = replace(row.transition, type="resolved")
        ended = replace(
            row, id=int(str(incident)), status="resolved", resolved_at_us=transition.at_us, transition=transition
        )
        return Judgement(window=judged_window_row(facts), incidents=[ended])

    judge_stored_window(control, stream_id, T0 + MINUTE, resolve)
    outbox, channel = Outbox(db), ScriptedChannel(UNAVAILABLE)
    assert deliver_next(outbox, "ops", channel, DAY_US)
    assert not deliver_next(outbox, "ops", channel, DAY_US)
    make_due(db)
    assert deliver_next(outbox, "ops", channel, DAY_US)
    assert deliver_next(outbox, "ops", channel, DAY_US)
    assert [each.transition for each in channel.sent] == ["opened", "opened", "resolved"]


def test_the_id_of_a_message_depends_on_its_transition_and_channel_alone(
    db: Database, notify_incidents: NotifyIncidents
) -> None:
    notify_incidents("log")
    assert [each.id for each in claim_all(Outbox(db), "log")] == ["8633649b63103a86c14b7bb40a3f6230"]


def test_a_failed_message_is_delivered_later_under_the_same_id(db: Database, notify_incidents: NotifyIncidents) -> None:
    notify_incidents("ops")
    outbox, channel = Outbox(db), ScriptedChannel(UNAVAILABLE)
    assert deliver_next(outbox, "ops", channel, DAY_US)
    assert notification_states(db) == [("ops", "pending", 1, "answered 503")]
    assert not deliver_next(outbox, "ops", channel, DAY_US), "it waits"
    make_due(db)
    assert deliver_next(outbox, "ops", channel, DAY_US)
    assert notification_states(db) == [("ops", "delivered", 2, None)]
    assert len({each.id for each in channel.sent}) == 1


def test_the_next_attempt_respects_retry_after(db: Database, notify_incidents: NotifyIncidents) -> None:
    notify_incidents("ops")
    outbox = Outbox(db)
    deliver_next(outbox, "ops", ScriptedChannel(replace(UNAVAILABLE, retry_after_s=3_600.0)), DAY_US)
    ((waits_us,),) = fetch_rows(db, "SELECT next_attempt_at_us - created_at_us FROM notifications")
    assert 3_600 * SECOND <= int(str(waits_us)) < 3_700 * SECOND


def test_a_refused_message_is_given_up_at_once_with_the_reason(
    db: Database, notify_incidents: NotifyIncidents, caplog: pytest.LogCaptureFixture
) -> None:
    notify_incidents("ops")
    refused = refuse(FailureReason.AUTH, "answered 401: who are you?")
    deliver_next(Outbox(db), "ops", ScriptedChannel(refused), DAY_US)
    assert notification_states(db) == [("ops", "dead", 1, "answered 401: who are you?")]
    assert caplog.records[-1].levelno == logging.ERROR
    assert "answered 401: who are you?; it is given up" in caplog.text


def test_a_message_past_its_deadline_is_tried_once_more_and_then_given_up(
    db: Database, notify_incidents: NotifyIncidents
) -> None:
    notify_incidents("ops")
    make_due(db, age_us=2 * DAY_US)
    channel = ScriptedChannel(UNAVAILABLE)
    deliver_next(Outbox(db), "ops", channel, DAY_US)
    assert notification_states(db) == [("ops", "dead", 1, "answered 503")]


def test_a_channel_that_raises_is_tried_again(
    db: Database, notify_incidents: NotifyIncidents, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(LogChannel):
        def send(self, message: Message) -> DeliveryResult:
            raise ZeroDivisionError

    notify_incidents("ops")
    deliver_next(Outbox(db), "ops", Broken(), DAY_US)
    assert notification_states(db) == [("ops", "pending", 1, "unexpected ZeroDivisionError")]


def test_a_late_failure_does_not_undo_a_recorded_delivery(db: Database, notify_incidents: NotifyIncidents) -> None:
    notify_incidents("ops")
    outbox = Outbox(db)
    (first,) = claim_all(outbox, "ops")
    make_due(db)
    (second,) = claim_all(outbox, "ops")
    outbox.mark_failed(first, "too slow", lambda _: None)
    assert notification_states(db) == [("ops", "pending", 2, None)]
    outbox.mark_delivered(first)
    outbox.mark_failed(second, "hung up", lambda _: None)
    assert notification_states(db) == [("ops", "delivered", 2, None)]


@dataclass
class KilledWhileSending(LogChannel):
    """A log channel that dies once, after sending a message and before recording it."""

    sent_ids: list[str] = field(default_factory=list)
    dies: bool = True
    # The claim lasts as long as this timeout and must not expire while a busy machine delays the test.
    timeout_s: float = 600.0

    def send(self, message: Message) -> DeliveryResult:
        self.sent_ids.append(message.id)
        if self.dies:
            self.dies = False
            raise SystemExit
        return super().send(message)


def test_a_message_sent_before_a_crash_is_sent_again_under_the_same_id(
    db: Database, notify_incidents: NotifyIncidents
) -> None:
    notify_incidents("log")
    channel = KilledWhileSending()
    with pytest.raises(SystemExit):
        deliver_next(Outbox(db), "log", channel, DAY_US)
    assert not deliver_next(Outbox(db), "log", channel, DAY_US), "it is claimed"
    make_due(db)
    assert deliver_next(Outbox(db), "log", channel, DAY_US)
    assert not deliver_next(Outbox(db), "log", channel, DAY_US)
    assert channel.sent_ids[0] == channel.sent_ids[1]
    assert fetch_rows(db, "SELECT id, state, attempts FROM notifications") == [(channel.sent_ids[0], "delivered", 2)]


def test_a_delivered_message_has_its_time_and_is_not_due_again(db: Database, notify_incidents: NotifyIncidents) -> None:
    notify_incidents("log")
    assert deliver_next(Outbox(db), "log", LogChannel(), DAY_US)
    assert Outbox(db).count_pending() == 0
    assert int(str(fetch_rows(db, "SELECT delivered_at_us FROM notifications")[0][0])) > T0


def test_the_log_line_of_an_incident_has_stream_kind_transition_and_summary(
    db: Database, notify_incidents: NotifyIncidents, caplog: pytest.LogCaptureFixture
) -> None:
    notify_incidents("log")
    with caplog.at_level(logging.INFO, "outrider.incidents"):
        deliver_next(Outbox(db), "log", LogChannel(), DAY_US)
    (record,) = caplog.records
    assert record.getMessage() == "Stream payments: spike opened (incident 1): a spike"
    assert record.levelno == logging.WARNING
    assert record.__dict__["details"] == {"n": 1}


@pytest.mark.parametrize(
    ("severity", "transition", "level"),
    [
        ("warning", "opened", logging.WARNING),
        ("critical", "escalated", logging.ERROR),
        ("critical", "resolved", logging.INFO),
    ],
)
def test_log_levels_follow_severity_and_transition(
    severity: str, transition: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    message = Message(
        id="1",
        channel="log",
        attempt=1,
        created_at_us=T0,
        stream="payments",
        incident_id=7,
        kind="spike",
        severity=severity,
        transition=transition,
        window_start_us=T0,
        at_us=T0,
        summary="-",
        details={},
        sequence=1,
        opened_at_us=T0,
    )
    with caplog.at_level(logging.INFO, "outrider.incidents"):
        LogChannel().send(message)
    assert [record.levelno for record in caplog.records] == [level]


def test_messages_of_a_removed_channel_are_given_up_after_the_deadline(
    db: Database, notify_incidents: NotifyIncidents
) -> None:
    notify_incidents("gone", "log")
    outbox = Outbox(db)
    assert deliver_next(outbox, "log", LogChannel(), DAY_US)
    assert outbox.give_up_unknown_channels({"log"}, DAY_US) == 0
    assert [state[:2] for state in notification_states(db)] == [("gone", "pending"), ("log", "delivered")]
    make_due(db, age_us=DAY_US)
    assert outbox.give_up_unknown_channels({"log", "gone"}, DAY_US) == 0
    assert outbox.give_up_unknown_channels({"log"}, DAY_US) == 1
    assert notification_states(db)[0] == ("gone", "dead", 0, "no daemon has a channel of this name any more")


def test_channels_are_built_by_name_together_with_the_log() -> None:
    channels = {"ops": {"type": "log"}, "hook": {"type": "webhook", "url": "http://127.0.0.1/"}}
    made = build_channels(settings_with(channels), None)
    assert {name: type(channel) for name, channel in made.items()} == {
        "log": LogChannel,
        "ops": LogChannel,
        "hook": Webhook,
    }


def test_a_skipped_channel_has_a_row_that_is_never_sent(
    db: Database, stream_id: int, source: CommittingSource, control: WindowStore
) -> None:
    source.commit(source.part())
    seal(db, stream_id, T0 + MINUTE)

    def decide(facts: WindowFacts) -> Judgement:
        incident = opened_incident(facts, channels=("log", "ops"))
        assert incident.transition is not None
        skipped = replace(incident, transition=replace(incident.transition, skipped_channels=("ops",)))
        return Judgement(window=judged_window_row(facts), incidents=[skipped])

    judge_stored_window(control, stream_id, T0, decide)
    assert (len(claim_all(Outbox(db), "log")), len(claim_all(Outbox(db), "ops"))) == (1, 0)
    assert fetch_rows(db, "SELECT channel, state FROM notifications ORDER BY 1") == [
        ("log", "pending"),
        ("ops", "skipped"),
    ]
    assert count_rows(db, "transitions") == 1


@pytest.mark.parametrize("opened_is_sent", [True, False])
def test_the_resolution_goes_to_the_channels_that_got_the_opening_at_any_age(
    db: Database, stream_id: int, source: CommittingSource, control: WindowStore, opened_is_sent: bool
) -> None:
    source.commit(source.part(0), source.part(1))
    seal(db, stream_id, T0 + 2 * MINUTE)

    def step(facts: WindowFacts, transition: str, *channels: str, skipped: tuple[str, ...]) -> Judgement:
        row = opened_incident(facts, channels=channels)
        assert row.transition is not None
        changed = replace(row.transition, type=transition, skipped_channels=skipped)
        row = replace(row, transition=changed)
        if transition == "resolved":
            row = replace(row, id=facts.open_incidents[0].id, status="resolved", resolved_at_us=changed.at_us)
        return Judgement(window=judged_window_row(facts), incidents=[row])

    skipped = () if opened_is_sent else ("ops",)
    judge_stored_window(control, stream_id, T0, lambda facts: step(facts, "opened", "log", "ops", skipped=skipped))
    last = ("night",) if opened_is_sent else ()
    judge_stored_window(
        control, stream_id, T0 + MINUTE, lambda facts: step(facts, "resolved", "log", "night", skipped=last)
    )
    states = fetch_rows(db, "SELECT channel, state FROM notification_history WHERE transition = 'resolved' ORDER BY 1")
    assert states == [("log", "pending"), ("night", "skipped"), ("ops", "pending" if opened_is_sent else "skipped")]


def test_messages_are_counted_by_channel_and_state(db: Database, notify_incidents: NotifyIncidents) -> None:
    notify_incidents("ops", "log", kinds=("spike", "gap"))
    outbox = Outbox(db)
    deliver_next(outbox, "ops", ScriptedChannel(refuse(FailureReason.CLIENT_ERROR, "answered 404")), DAY_US)
    deliver_next(outbox, "log", LogChannel(), DAY_US)
    counts = outbox.count_by_channel()
    ops, log = counts["ops"], counts["log"]
    assert (ops.pending, ops.delivered, ops.dead, ops.last_error) == (1, 0, 1, "answered 404")
    assert (log.pending, log.delivered, log.dead, log.last_error) == (1, 1, 0, None)
    assert log.last_delivered_us is not None
    assert ops.oldest_pending_us is not None


def make_sender(db: Database, receiver: WebhookReceiver, **settings: object) -> NotificationSender:
    """Return a sender to a receiver as the channel `ops`, besides the log."""
    ops = {"type": "webhook", "url": receiver.url} | settings
    return NotificationSender.from_settings(settings_with({"ops": ops}), Outbox(db))


def test_the_sender_delivers_due_messages_before_it_stops(
    db: Database, notify_incidents: NotifyIncidents, receiver: WebhookReceiver
) -> None:
    notify_incidents("ops", "log", kinds=("spike", "gap"))
    running = make_sender(db, receiver)
    running.start()
    running.stop(30)
    assert {state[:3] for state in notification_states(db)} == {("ops", "delivered", 1), ("log", "delivered", 1)}
    assert len(set(receiver.idempotency_keys)) == 2


def test_a_hanging_endpoint_delays_neither_the_log_nor_the_stop(
    db: Database, notify_incidents: NotifyIncidents, receiver: WebhookReceiver
) -> None:
    notify_incidents("ops", "log")
    receiver.react = lambda _: HangReaction()
    running = make_sender(db, receiver, timeout="5m")
    running.start()
    wait_until(lambda: fetch_rows(db, "SELECT state FROM notifications WHERE channel = 'log'") == [("delivered",)])
    wait_until(lambda: len(receiver.requests) == 1)
    running.stop(0.2)
    assert [thread for thread in threading.enumerate() if thread.name == "notify-log"] == []
    assert [state[:2] for state in notification_states(db)] == [("log", "delivered"), ("ops", "pending")]


def test_requests_of_a_channel_run_concurrently_up_to_its_limit(
    db: Database, notify_incidents: NotifyIncidents, receiver: WebhookReceiver
) -> None:
    notify_incidents("ops", kinds=("spike", "gap", "dead_letters", "drift"))
    at_once = threading.Barrier(2)
    most: list[int] = []

    def react(_: object) -> RespondReaction:
        at_once.wait(10)
        most.append(at_once.n_waiting)
        return RespondReaction()

    receiver.react = react
    running = make_sender(db, receiver, concurrency=2)
    running.start()
    wait_until(lambda: Outbox(db).count_pending() == 0)
    running.stop(10)
    assert len(most) == 4


def test_a_chat_message_is_not_repeated_after_a_kill_between_its_record_and_the_outbox(
    db: Database, notify_incidents: NotifyIncidents, receiver: WebhookReceiver
) -> None:
    workspace = SlackWorkspace(receiver)
    chat = {"type": "slack", "token": TOKEN, "channel": "#ops", "api_url": workspace.api_url}
    notify_incidents("chat")
    outbox = Outbox(db)

    def start_process() -> Channel:
        return build_channels(settings_with({"chat": chat}), db)["chat"]

    (message,) = claim_all(outbox, "chat")
    assert start_process().send(message).outcome == "delivered"
    make_due(db)
    assert deliver_next(outbox, "chat", start_process(), DAY_US)
    assert notification_states(db)[0][1] == "delivered"
    assert (workspace.calls, len(workspace.messages)) == (["chat.postMessage"], 1)


def test_a_chat_message_that_was_posted_and_not_recorded_is_repeated_once(
    db: Database, notify_incidents: NotifyIncidents, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = SlackWorkspace(receiver)
    chat = {"type": "slack", "token": TOKEN, "channel": "#ops", "api_url": workspace.api_url}
    notify_incidents("chat")
    outbox = Outbox(db)
    channel = build_channels(settings_with({"chat": chat}), db)["chat"]

    def end_process(*_: object) -> None:
        raise SystemExit

    (message,) = claim_all(outbox, "chat")
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(PostedMessageStore, "record", end_process)
        channel.send(message)
    make_due(db)
    assert deliver_next(outbox, "chat", build_channels(settings_with({"chat": chat}), db)["chat"], DAY_US)
    assert workspace.calls == ["chat.postMessage", "chat.postMessage"]
    assert notification_states(db)[0][1] == "delivered"
