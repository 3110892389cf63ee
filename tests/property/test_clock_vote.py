"""The vote on event times gives the same result for any reading pieces, and with the memory of a reader lost."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers import clock_vote
from consumers.clock_vote import ReadExtent, TimedRecords, find_stray_times
from consumers.windows import NO_WATERMARK_US

MAX_FUTURE = 30
TIMES = st.lists(st.integers(0, 200), max_size=4)
LOGS = st.lists(st.tuples(TIMES, st.integers(0, 3), st.booleans()), max_size=25)
"""Record batches: their times, the offsets without a time after each, and whether the broker has set the times."""


def build(batches) -> tuple[TimedRecords, int]:
    offsets, times, bases, trusted = [], [], [], []
    offset = 0
    for batch, holes, stamped in batches:
        base = offset
        for time in batch:
            offsets.append(offset)
            times.append(time)
            bases.append(base)
            trusted.append(stamped)
            offset += 1
        offset += holes
    log = TimedRecords(
        offsets=np.array(offsets, np.int64),
        times_us=np.array(times, np.int64),
        batch_offsets=np.array(bases, np.int64),
        is_trusted=np.array(trusted, np.bool_),
    )
    return log, offset


def rows(log: TimedRecords, begin: int, end: int) -> TimedRecords:
    return TimedRecords(
        offsets=log.offsets[begin:end],
        times_us=log.times_us[begin:end],
        batch_offsets=log.batch_offsets[begin:end],
        is_trusted=log.is_trusted[begin:end],
    )


def decide_in_pieces(log: TimedRecords, end: int, cuts: list[int], clock: int) -> list[bool]:
    """Read a log in pieces; after each one decide as much as possible, and forget everything but the position."""
    result: list[bool] = []
    watermark: int | None = None
    for until in [*sorted(min(cut, end) for cut in cuts), end]:
        n_read = int(np.searchsorted(log.offsets, until))
        known = rows(log, len(result), n_read)
        at_end = until == end
        extent = ReadExtent(read_until=until, log_end_us=clock if at_end else None, ended=False)
        stray, decided = find_stray_times(known, len(known), watermark, MAX_FUTURE, extent)
        believed = known.times_us[:decided][~stray[:decided]]
        watermark = max([*believed.tolist(), NO_WATERMARK_US if watermark is None else watermark])
        result += stray[:decided].tolist()
    return result


@settings(max_examples=60)
@given(LOGS, st.lists(st.integers(0, 150), max_size=8), st.integers(0, 250))
def test_pieces_and_take_overs_change_nothing(batches, cuts, clock):
    log, end = build(batches)
    assert decide_in_pieces(log, end, cuts, clock) == decide_in_pieces(log, end, [], clock)


@settings(max_examples=60)
@given(LOGS, st.lists(st.integers(0, 150), max_size=8), st.integers(1, 12), st.integers(1, 12))
def test_pieces_change_nothing_where_the_offsets_end_the_vote(batches, cuts, own, vote):
    log, end = build(batches)
    limits = clock_vote.MAX_OWN_OFFSETS, clock_vote.MAX_VOTE_OFFSETS
    clock_vote.MAX_OWN_OFFSETS, clock_vote.MAX_VOTE_OFFSETS = own, vote
    try:
        assert decide_in_pieces(log, end, cuts, 100) == decide_in_pieces(log, end, [], 100)
    finally:
        clock_vote.MAX_OWN_OFFSETS, clock_vote.MAX_VOTE_OFFSETS = limits


@settings(max_examples=60)
@given(LOGS, LOGS, st.integers(0, 250))
def test_a_decision_without_the_clock_does_not_depend_on_later_records(batches, later, clock):
    log, end = build(batches)
    longer, longer_end = build([*batches, *later])
    stray, decided = find_stray_times(log, len(log), None, MAX_FUTURE, ReadExtent(read_until=end))
    extent = ReadExtent(read_until=longer_end, log_end_us=clock)
    whole, n = find_stray_times(longer, len(longer), None, MAX_FUTURE, extent)
    assert n >= decided
    assert stray[:decided].tolist() == whole[:decided].tolist()
