"""Examples of the vote on event times beyond the watermark."""

import numpy as np
import pytest

from consumers.clock_vote import (
    MAX_OWN_OFFSETS,
    MAX_VOTE_OFFSETS,
    MAX_VOTES,
    VOTE_LEAD,
    ReadExtent,
    TimedRecords,
    find_stray_times,
)

MINUTE = 60
MAX_FUTURE = 5 * MINUTE
AHEAD = 50 * MINUTE


def log_of(*batches, trusted=False):
    """Return the records of record batches, given as lists of times."""
    times = [time for batch in batches for time in batch]
    starts = np.cumsum([0, *(len(batch) for batch in batches)])
    return TimedRecords(
        offsets=np.arange(len(times), dtype=np.int64),
        times_us=np.array(times, np.int64),
        batch_offsets=np.repeat(starts[:-1], [len(batch) for batch in batches]).astype(np.int64),
        is_trusted=np.full(len(times), trusted),
    )


def decide(log, watermark=0, *, n=None, read_until=None, clock=None, ended=False):
    n = len(log) if n is None else n
    until = int(log.offsets[-1]) + 1 if read_until is None else read_until
    extent = ReadExtent(read_until=until, log_end_us=clock, ended=ended)
    stray, decided = find_stray_times(log, n, watermark, MAX_FUTURE, extent)
    return stray[:decided].tolist(), decided


def singles(*times):
    return [[time] for time in times]


def test_one_record_ahead_is_not_believed_when_the_next_batches_are_earlier():
    log = log_of(*singles(0, AHEAD, 1, 2, 3, 4, 5, 6))
    assert decide(log) == ([False, True, *[False] * 6], 8)


def test_a_jump_of_the_whole_stream_is_believed():
    log = log_of(*singles(0, *range(AHEAD, AHEAD + 8)))
    assert decide(log) == ([False] * 9, 9)


def test_a_batch_of_one_wrong_clock_agrees_with_itself_and_is_not_believed():
    log = log_of([0], [AHEAD] * 100, *singles(1, 2, 3, 4, 5, 6))
    stray, decided = decide(log)
    assert decided == len(log)
    assert sum(stray) == 100


def test_a_wrong_clock_in_every_tenth_batch_is_never_believed():
    batches = [[second + (60 * MINUTE if second % 10 == 3 else 0)] for second in range(400)]
    stray, decided = decide(log_of(*batches), clock=400)
    assert decided > 390
    assert [i for i in range(decided) if stray[i]] == [i for i in range(decided) if i % 10 == 3]


def test_wrong_clocks_within_the_batches_of_others_do_not_vote():
    batches = [[second, second + 60 * MINUTE, second] for second in range(20)]
    stray, decided = decide(log_of(*batches), clock=20)
    assert decided > 3 * 14
    assert stray == [i % 3 == 1 for i in range(decided)]


def test_a_single_agreeing_batch_proves_nothing():
    log = log_of(*singles(0, AHEAD, AHEAD, 1, 2, 3, 4, 5, 6, 7))
    assert decide(log)[0][:3] == [False, True, True]


def test_a_jump_waits_until_enough_batches_follow():
    assert decide(log_of(*singles(0, AHEAD, 1, 2, 3, 4))) == ([False], 1)
    assert decide(log_of(*singles(0, AHEAD, 1, 2, 3, 4, 5))) == ([False], 1), "the last batch may be incomplete"
    assert decide(log_of(*singles(0, AHEAD, 1, 2, 3, 4, 5, 6)))[1] == 8


def test_at_the_end_of_the_log_a_jump_is_believed_once_the_clock_has_reached_it():
    log = log_of(*singles(0, AHEAD))
    assert decide(log, clock=AHEAD - MAX_FUTURE - 1) == ([False], 1)
    assert decide(log, clock=AHEAD - MAX_FUTURE) == ([False, False], 2)


def test_at_the_end_of_the_log_fewer_votes_or_the_records_of_its_own_batch_may_contradict_a_time():
    assert decide(log_of(*singles(0, AHEAD, 1, 2)), clock=10 * AHEAD)[0] == [False, True, False, False]
    assert decide(log_of([0, AHEAD, 1, 2]), clock=10 * AHEAD)[0] == [False, True, False, False]
    assert decide(log_of([0, AHEAD, AHEAD + 1, AHEAD + 2]), clock=10 * AHEAD)[0] == [False] * 4


def test_votes_against_it_are_not_overruled_by_the_clock():
    log = log_of(*singles(0, AHEAD, 1, 2, 3, 4, 5))
    assert decide(log, clock=10 * AHEAD)[0][:2] == [False, True]


@pytest.mark.parametrize("watermark", [None, 0])
def test_a_stream_with_rarer_events_than_max_future_goes_on(watermark):
    hours = [60 * MINUTE * hour for hour in range(1, 10)]
    assert decide(log_of(*singles(*hours)), watermark, clock=hours[-1]) == ([False] * 9, 9)


def test_the_first_event_of_a_source_is_a_jump():
    log = log_of(*singles(AHEAD, 1, 2, 3, 4, 5, 6))
    assert decide(log, None, clock=6)[0] == [True, *[False] * 6]


def test_times_of_the_broker_are_no_jumps():
    assert decide(log_of(*singles(0, AHEAD, 1), trusted=True)) == ([False] * 3, 3)


def test_a_divided_vote_goes_on_until_the_majority_decides_it():
    votes = [1, AHEAD] * MAX_VOTES
    stray, _ = decide(log_of([0], [AHEAD], *singles(*votes)))
    assert stray[1], "13 of 25 votes are against it"


def test_waiting_ends_after_a_number_of_offsets():
    log = log_of(*singles(0, AHEAD))
    limit = 1 + MAX_OWN_OFFSETS + MAX_VOTE_OFFSETS
    assert decide(log, read_until=limit - 1)[1] == 1
    assert decide(log, read_until=limit) == ([False, False], 2), "nothing speaks against the time"


def test_the_majority_decides_where_the_offsets_end():
    log = log_of([0], [AHEAD], [1], [2])
    assert decide(log, read_until=2 + MAX_VOTE_OFFSETS)[0] == [False, True, False, False]


def test_records_beyond_the_offsets_do_not_vote():
    ahead_again = [AHEAD] * MAX_VOTE_OFFSETS
    log = log_of([0], [AHEAD], [1] * (MAX_VOTE_OFFSETS - 2), [1, *ahead_again], [AHEAD])
    assert decide(log, n=2)[0] == [False, True], "within the offsets both batches are earlier"


def test_at_the_end_of_a_file_the_rows_that_follow_decide():
    log = log_of([0, AHEAD, 1, 2])
    assert decide(log, ended=True) == ([False, True, False, False], 4)
    assert decide(log_of([0, 1, AHEAD, AHEAD + 1]), ended=True) == ([False] * 4, 4)


def test_the_last_row_of_a_file_is_believed_if_the_clock_has_reached_it():
    log = log_of([0, 1, AHEAD])
    assert decide(log, ended=True, clock=AHEAD)[0] == [False, False, False]
    assert decide(log, ended=True, clock=MINUTE)[0] == [False, False, True]


def test_rows_of_a_file_form_batches_by_row_number():
    offsets = np.arange(98, 103, dtype=np.int64)
    assert TimedRecords.of(offsets, offsets, None, None).batch_offsets.tolist() == [0, 0, 100, 100, 100]


def test_unanimous_votes_are_the_next_five_batches():
    assert VOTE_LEAD == 5
