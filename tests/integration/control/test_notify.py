"""Telling people: from the outbox to the log, each message under one id, and none lost."""

import logging
from dataclasses import dataclass, field, replace

import pytest

from config.notify import NotifySettings
from monitor.notify import LogChannel, channels_of, deliver_due
from storage.control import ControlStore
from storage.engine import Database
from storage.judgements import Judgement, WindowFacts
from storage.outbox import Message, Outbox
from tests.integration.control.feeding import MINUTE, T0, count, rows, seal
from tests.integration.control.judging import Source, opened, spike, window_of


def test_the_outbox_gives_what_is_pending_in_the_order_of_the_transitions(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part(0), source.part(1))
    seal(db, stream_id, T0 + 2 * MINUTE)

    def decide(facts: WindowFacts) -> Judgement:
        kinds = ("spike", "dead_letters") if facts.window_start_us == T0 else ("gap",)
        return Judgement(window=window_of(facts), incidents=[opened(facts, kind, ("ops", "log")) for kind in kinds])

    for start in control.due_windows(stream_id):
        control.judge(stream_id, "payments", start, decide)
    due = Outbox(db).due(("log", "ops"))
    assert [(each.kind, each.channel) for each in due] == [
        ("spike", "log"),
        ("spike", "ops"),
        ("dead_letters", "log"),
        ("dead_letters", "ops"),
        ("gap", "log"),
        ("gap", "ops"),
    ]
    assert len({each.id for each in due}) == 6
    assert (due[0].stream, due[0].transition, due[0].window_start_us, due[0].details) == (
        "payments",
        "opened",
        T0,
        {"n": 1},
    )
    Outbox(db).delivered(due[0].id)
    assert [each.id for each in Outbox(db).due(("log", "ops"), limit=2)] == [due[1].id, due[2].id]
    assert Outbox(db).pending() == 5


def test_the_id_of_a_message_is_that_of_its_transition_and_channel_in_every_database(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part())
    seal(db, stream_id, T0 + MINUTE)
    control.judge(stream_id, "payments", T0, spike)
    assert [each.id for each in Outbox(db).due(["log"])] == ["0400107b56e45eeef8d8b68cdaf35518"]


@dataclass
class Killed(LogChannel):
    """A log whose process dies once, after a message went out and before that is recorded."""

    told: list[str] = field(default_factory=list)
    dies: bool = True

    def send(self, message: Message) -> None:
        super().send(message)
        self.told.append(message.id)
        if self.dies:
            self.dies = False
            raise SystemExit


def test_a_message_that_went_out_before_the_process_died_is_told_again_under_its_id(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part())
    seal(db, stream_id, T0 + MINUTE)
    control.judge(stream_id, "payments", T0, spike)
    channel = Killed()
    with pytest.raises(SystemExit):
        deliver_due(Outbox(db), {"log": channel})
    assert deliver_due(Outbox(db), {"log": channel}) == 1
    assert deliver_due(Outbox(db), {"log": channel}) == 0
    assert channel.told[0] == channel.told[1]
    assert rows(db, "SELECT id, state, attempts FROM notifications") == [(channel.told[0], "delivered", 1)]


def test_a_delivered_message_has_its_time_and_is_not_due_again(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part())
    seal(db, stream_id, T0 + MINUTE)
    control.judge(stream_id, "payments", T0, spike)
    assert deliver_due(Outbox(db), {"log": LogChannel()}) == 1
    assert Outbox(db).pending() == 0
    assert int(str(rows(db, "SELECT delivered_at_us FROM notifications")[0][0])) > T0


def test_the_log_line_of_an_incident_says_stream_kind_transition_and_why(
    db: Database, stream_id: int, source: Source, control: ControlStore, caplog: pytest.LogCaptureFixture
) -> None:
    source.commit(source.part())
    seal(db, stream_id, T0 + MINUTE)
    control.judge(stream_id, "payments", T0, spike)
    with caplog.at_level(logging.INFO, "outrider.incidents"):
        deliver_due(Outbox(db), {"log": LogChannel()})
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
def test_what_is_critical_is_an_error_and_what_is_over_is_information(
    severity: str, transition: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    message = Message(
        id="1",
        channel="log",
        attempts=0,
        stream="payments",
        incident_id=7,
        kind="spike",
        severity=severity,
        transition=transition,
        window_start_us=T0,
        at_us=T0,
        summary="-",
        details={},
    )
    with caplog.at_level(logging.INFO, "outrider.incidents"):
        LogChannel().send(message)
    assert [record.levelno for record in caplog.records] == [level]


def test_a_channel_that_is_gone_holds_up_no_others(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part())
    seal(db, stream_id, T0 + MINUTE)
    told = ("gone", "log")
    control.judge(
        stream_id,
        "payments",
        T0,
        lambda facts: Judgement(window=window_of(facts), incidents=[opened(facts, channels=told)]),
    )
    assert deliver_due(Outbox(db), {"log": LogChannel()}) == 1
    assert rows(db, "SELECT channel, state FROM notifications ORDER BY 1") == [
        ("gone", "pending"),
        ("log", "delivered"),
    ]


def test_a_channel_of_type_log_has_its_name_beside_the_log() -> None:
    settings = NotifySettings.model_validate({"channels": {"ops": {"type": "log"}}})
    assert set(channels_of(settings)) == {"log", "ops"}


def test_a_silent_channel_has_a_row_that_is_never_sent(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part())
    seal(db, stream_id, T0 + MINUTE)

    def decide(facts: WindowFacts) -> Judgement:
        incident = opened(facts, channels=("log", "ops"))
        assert incident.transition is not None
        silent = replace(incident, transition=replace(incident.transition, silent=("ops",)))
        return Judgement(window=window_of(facts), incidents=[silent])

    control.judge(stream_id, "payments", T0, decide)
    assert [each.channel for each in Outbox(db).due(("log", "ops"))] == ["log"]
    assert rows(db, "SELECT channel, state FROM notifications ORDER BY 1") == [("log", "pending"), ("ops", "skipped")]
    assert count(db, "transitions") == 1
