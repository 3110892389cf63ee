"""The transitions of a partition buffer, and the batch that the next commit takes."""

from dataclasses import replace

import pytest

from consumers.batch import Position
from consumers.decoded_batch import DecodedBatch
from monitor.pipeline.partition_buffer import (
    COMMIT_EVENTS,
    WATERMARK_REPEAT_S,
    BufferAdvance,
    BufferState,
    HeldByLead,
    Hold,
    PartitionBuffer,
    Undecided,
    next_batch,
)
from tests.unit.monitor.pipeline.pending_records import claimed, control, records, unreadable

HELD = HeldByLead(control=control())


def in_state(state: BufferState) -> PartitionBuffer:
    buffer = claimed()
    if state in {BufferState.PENDING, BufferState.HELD_BY_LEAD, BufferState.UNDECIDED}:
        buffer.add(records(0, 1), now_s=0.0)
    if state is BufferState.HELD_BY_LEAD:
        buffer.apply_hold(HELD, now_s=0.0)
    if state is BufferState.UNDECIDED:
        buffer.apply_hold(Undecided(), now_s=0.0)
    if state in {BufferState.ENDED, BufferState.END_STORED}:
        buffer.end()
    if state is BufferState.END_STORED:
        buffer.apply_stored_end()
    return buffer


def advance(remaining: DecodedBatch | None = None, hold: Hold | None = None) -> BufferAdvance:
    """Return the commit of the first pending batch with two events, of which `remaining` remain."""
    left = 0 if remaining is None else len(remaining.events)
    return BufferAdvance(
        n_batches=1,
        n_records=2 - left,
        n_events=2 - left,
        position=Position(next_offset=2 - left, cursor=10 * (2 - left)),
        watermark_us=7,
        remaining=remaining,
        hold=hold,
    )


@pytest.mark.parametrize("state", list(BufferState))
def test_every_state_can_be_reached_from_a_claim(state: BufferState) -> None:
    assert in_state(state).state is state


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (BufferState.CLAIMED, BufferState.PENDING),
        (BufferState.PENDING, BufferState.PENDING),
        (BufferState.HELD_BY_LEAD, BufferState.HELD_BY_LEAD),
        (BufferState.UNDECIDED, BufferState.PENDING),
        (BufferState.ENDED, BufferState.PENDING),
        (BufferState.END_STORED, BufferState.PENDING),
    ],
)
def test_added_records_are_pending_unless_the_lead_holds_earlier_ones(before: BufferState, after: BufferState) -> None:
    buffer = in_state(before)
    buffer.add(records(2, begin=2), now_s=1.0)
    assert buffer.state is after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (BufferState.CLAIMED, BufferState.ENDED),
        (BufferState.PENDING, BufferState.PENDING),
        (BufferState.HELD_BY_LEAD, BufferState.HELD_BY_LEAD),
        (BufferState.UNDECIDED, BufferState.PENDING),
        (BufferState.ENDED, BufferState.ENDED),
        (BufferState.END_STORED, BufferState.END_STORED),
    ],
)
def test_the_end_decides_an_undecided_event_and_waits_for_pending_records(
    before: BufferState, after: BufferState
) -> None:
    buffer = in_state(before)
    buffer.end()
    assert buffer.state is after


@pytest.mark.parametrize("before", [BufferState.PENDING, BufferState.HELD_BY_LEAD])
@pytest.mark.parametrize(
    ("stored", "after"),
    [
        (advance(), BufferState.CLAIMED),
        (advance(records(9, begin=1)), BufferState.PENDING),
        (advance(records(9, begin=1), HELD), BufferState.HELD_BY_LEAD),
        (advance(records(9, begin=1), Undecided()), BufferState.UNDECIDED),
    ],
)
def test_a_stored_commit_leaves_the_remaining_records_under_their_hold(
    before: BufferState, stored: BufferAdvance, after: BufferState
) -> None:
    buffer = in_state(before)
    buffer.apply_commit(stored, now_s=5.0)
    assert buffer.state is after
    assert (buffer.position, buffer.watermark_us) == (stored.position, 7)
    assert buffer.record_count == (0 if stored.remaining is None else 1)
    assert (buffer.pending_since_s, buffer.last_announced_s) == (5.0, 5.0)


def test_the_last_commit_of_an_ended_source_leaves_its_end_to_be_stored() -> None:
    buffer = in_state(BufferState.PENDING)
    buffer.end()
    buffer.apply_commit(advance(), now_s=5.0)
    assert buffer.state is BufferState.ENDED


def test_records_after_a_stored_end_make_the_end_due_again() -> None:
    buffer = in_state(BufferState.END_STORED)
    buffer.add(records(0, 1), now_s=1.0)
    buffer.apply_commit(advance(), now_s=2.0)
    assert buffer.state is BufferState.ENDED


def test_a_commit_takes_its_batches_and_leaves_the_others() -> None:
    buffer = in_state(BufferState.PENDING)
    for begin in (2, 3, 4):
        buffer.add(records(2, begin=begin), now_s=0.0)
    buffer.apply_commit(
        BufferAdvance(n_batches=3, n_records=4, n_events=4, position=Position(next_offset=4), watermark_us=7), now_s=5.0
    )
    assert [batch.begin for batch in buffer.pending] == [4]
    assert (buffer.state, buffer.record_count) == (BufferState.PENDING, 1)


def test_a_batch_without_offsets_is_no_pending_batch() -> None:
    buffer = claimed()
    buffer.add(records(), now_s=0.0)
    assert buffer.state is BufferState.CLAIMED


def test_waiting_times_count_from_the_first_record() -> None:
    buffer = claimed()
    buffer.add(records(0, 1), now_s=3.0)
    buffer.add(records(2, begin=2), now_s=4.0)
    assert (buffer.records_since_s, buffer.pending_since_s, buffer.last_event_s) == (3.0, 3.0, 4.0)
    buffer.apply_commit(advance(records(9, begin=1), HELD), now_s=5.0)
    assert (buffer.records_since_s, buffer.pending_since_s) == (3.0, 5.0)


def test_pending_records_are_due_and_urgent_when_full_and_when_nothing_follows() -> None:
    buffer = in_state(BufferState.PENDING)
    assert buffer.is_due(control(), 0.0)
    assert not buffer.is_urgent(control(), 1e9)
    buffer.end()
    assert buffer.is_urgent(control(), 0.0)
    full = in_state(BufferState.PENDING)
    full.add(records(begin=2, dead=COMMIT_EVENTS - 2), now_s=0.0)
    assert full.is_urgent(control(), 0.0)


def test_the_events_of_the_next_commit_are_those_of_the_batches_that_it_joins() -> None:
    assert claimed().count_next_events() == 0
    buffer = claimed()
    half = records(*[0.0] * (COMMIT_EVENTS // 2))
    for begin in (0, half.end, 2 * half.end):
        buffer.add(replace(half, begin=begin, end=begin + half.end), now_s=0.0)
    assert buffer.count_next_events() == COMMIT_EVENTS


def test_held_records_are_due_when_the_control_state_changes_and_to_repeat_their_watermark() -> None:
    buffer = in_state(BufferState.HELD_BY_LEAD)
    buffer.apply_repeated_watermark(10.0)
    assert not buffer.is_due(control(), 10.0 + 0.9 * WATERMARK_REPEAT_S)
    assert buffer.is_due(control(), 10.0 + WATERMARK_REPEAT_S)
    for changed in (control(sealed=1), control(revision=1), replace(control(), last_tick_us=1)):
        assert buffer.is_urgent(changed, 10.0)


@pytest.mark.parametrize(
    ("state", "due"),
    [
        (BufferState.CLAIMED, False),
        (BufferState.UNDECIDED, False),
        (BufferState.ENDED, True),
        (BufferState.END_STORED, False),
    ],
)
def test_without_records_that_can_be_committed_only_the_end_is_due(state: BufferState, due: bool) -> None:
    assert in_state(state).is_due(control(), 1e9) is due
    assert in_state(state).is_urgent(control(), 1e9) is due


def test_the_next_batch_joins_pending_batches_up_to_the_size_of_a_commit() -> None:
    half = records(*[0.0] * (COMMIT_EVENTS // 2))
    pieces = [replace(half, begin=begin, end=begin + half.end) for begin in (0, half.end, 2 * half.end)]
    batch, n = next_batch(pieces)
    assert (n, batch.begin, batch.end, len(batch.events)) == (2, 0, COMMIT_EVENTS, COMMIT_EVENTS)


def test_an_unreadable_range_is_a_batch_of_its_own() -> None:
    pieces = [records(0), unreadable(1, 4), unreadable(4, 6), records(1, begin=6)]
    assert [next_batch(pieces[first:])[1] for first in range(4)] == [1, 1, 1, 1]
    assert next_batch(pieces[1:])[0] is pieces[1]
