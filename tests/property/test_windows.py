"""Windows neither lose nor repeat events. Watermarks and lateness do not depend on batch boundaries."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from consumers.windows import (
    NO_WATERMARK_US,
    count_before_lead_end,
    watermark_before,
    window_start,
)

TIMES = st.lists(st.integers(0, 2_000), max_size=40).map(lambda times: np.array(times, np.int64))
SOME_TIMES = st.lists(st.integers(0, 2_000), min_size=1, max_size=40).map(lambda ts: np.array(ts, np.int64))
BEFORE = st.none() | st.integers(0, 2_000)


@given(TIMES, st.integers(1, 500))
def test_every_time_is_in_exactly_one_window(times, size):
    start = window_start(times, size)
    assert (start % size == 0).all()
    assert ((start <= times) & (times < start + size)).all()


@given(TIMES, BEFORE, st.integers(0, 40))
def test_watermark_does_not_depend_on_batch_boundaries(times, before, cut):
    whole = watermark_before(times, before)
    first, second = times[:cut], times[cut:]
    marks = [before, *first.tolist()]
    known = [mark for mark in marks if mark is not None]
    parts = [watermark_before(first, before), watermark_before(second, max(known) if known else None)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


@given(TIMES, BEFORE)
def test_watermark_is_the_largest_time_at_earlier_offsets(times, before):
    start = NO_WATERMARK_US if before is None else before
    expected = [max([start, *times[:i].tolist()]) for i in range(len(times))]
    assert watermark_before(times, before).tolist() == expected


@given(TIMES, st.integers(0, 2_500))
def test_lead_is_cut_at_the_first_event_at_the_limit(times, limit):
    cut = count_before_lead_end(times, limit)
    assert (times[:cut] < limit).all()
    assert cut == len(times) or times[cut] >= limit
