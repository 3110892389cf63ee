"""The incident `stalled`: it follows the wall clock."""

from dataclasses import replace

from monitor.incidents.stalled import HeldPartition, update_stalled_incident
from storage.control.records import Incident
from tests.unit.monitor.judged_windows import MINUTE, RULES, T0

LIMITS = replace(RULES, stalled_after_us=5 * MINUTE, repeat_interval_us=60 * MINUTE)


def held(minutes: float, name: str = "orders[2]") -> HeldPartition:
    return HeldPartition(partition=name, since_us=T0 - round(minutes * MINUTE), reason="lead: it is ahead")


def update(*partitions: HeldPartition, open_incident: Incident | None = None, now_us: int = T0) -> list[Incident]:
    incidents = [] if open_incident is None else [open_incident]
    return update_stalled_incident(partitions, incidents, LIMITS, now_us=now_us)


def test_a_partition_opens_the_incident_after_the_configured_time_with_its_reason() -> None:
    assert update(held(4.9)) == []
    [opened] = update(held(4.9, "orders[0]"), held(7), held(6, "orders[1]"))
    assert opened.transition is not None
    assert (opened.kind, opened.transition.type) == ("stalled", "opened")
    assert opened.summary == (
        "the partition orders[2] (and 1 more) has records and has not moved for 7 min: lead: it is ahead"
    )
    assert [each["partition"] for each in opened.details["opened"]["partitions"]] == ["orders[2]", "orders[1]"]


def test_it_is_repeated_after_the_interval_and_resolved_when_every_partition_moves() -> None:
    opened = update(held(7))[0].with_id(1)
    assert update(held(8), open_incident=opened, now_us=T0 + MINUTE) == []
    [repeated] = update(held(70), open_incident=opened, now_us=T0 + 60 * MINUTE)
    assert repeated.transition is not None
    assert repeated.transition.type == "repeated"
    [resolved] = update(held(1), open_incident=opened, now_us=T0 + MINUTE)
    assert resolved.status == "resolved"
