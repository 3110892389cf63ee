"""The partitions with records that do not move, and their reasons."""

from dataclasses import replace

import pytest

from monitor.pipeline.partition_buffer import BufferAdvance, HeldByLead, Hold, Undecided
from monitor.pipeline.waiting import HELD_AFTER_S, find_waiting
from tests.unit.monitor.pipeline.pending_records import MINUTE, T0, claimed, control, records


@pytest.mark.parametrize(
    ("hold", "reason"), [(HeldByLead(control=control()), "lead"), (Undecided(), "undecided time"), (None, "store")]
)
def test_a_partition_waits_from_its_first_record_for_the_lead_a_time_or_the_store(
    hold: Hold | None, reason: str
) -> None:
    buffer = claimed(watermark=3)
    buffer.add(records(60), now_s=5.0)
    if hold is not None:
        buffer.apply_hold(hold, now_s=9.0)
    buffer.add(records(61, begin=1), now_s=12.0)
    assert find_waiting([buffer], 5.0 + HELD_AFTER_S - 0.1) == ()
    [waiting] = find_waiting([buffer], 5.0 + HELD_AFTER_S)
    assert waiting.since_s == 5.0
    assert waiting.reason.startswith(f"{reason}: ")


def test_a_commit_that_moves_the_position_ends_the_wait_and_one_of_the_watermark_alone_does_not() -> None:
    buffer = claimed()
    buffer.add(records(60, 61), now_s=5.0)
    first = BufferAdvance(n_batches=1, n_records=0, n_events=0, position=buffer.position, watermark_us=T0 + 60 * MINUTE)
    buffer.apply_commit(replace(first, remaining=records(60, 61)), now_s=20.0)
    assert find_waiting([buffer], 30.0)[0].since_s == 5.0
    moved = replace(first, n_records=1, position=replace(buffer.position, next_offset=1), remaining=records(61))
    buffer.apply_commit(moved, now_s=31.0)
    assert find_waiting([buffer], 40.0) == ()


def test_a_partition_without_records_does_not_wait() -> None:
    assert find_waiting([claimed()], 1e9) == ()
