"""Examples of windows, watermarks and stray times."""

import numpy as np

from consumers.windows import (
    NO_WATERMARK_US,
    count_before_lead_end,
    find_stray_times,
    watermark_before,
    window_start,
)

MINUTE = 60


def us(*values):
    return np.array(values, np.int64)


def test_event_at_a_boundary_belongs_to_the_window_that_starts_there():
    assert window_start(us(0, 59, 60, 119), MINUTE).tolist() == [0, 0, 60, 60]


def test_watermark_before_the_first_event_is_none():
    assert watermark_before(us(5, 3, 9), None).tolist() == [NO_WATERMARK_US, 5, 5]
    assert watermark_before(us(), 7).tolist() == []


def test_event_does_not_advance_its_own_watermark():
    assert watermark_before(us(100, 50), 10).tolist() == [10, 100]


def test_lead_is_cut_at_the_limit_even_if_later_events_are_before_it():
    assert count_before_lead_end(us(1, 2, 10, 3), 10) == 2
    assert count_before_lead_end(us(1, 2), 10) == 2
    assert count_before_lead_end(us(), 10) == 0


def test_jump_contradicted_by_the_next_events_is_stray():
    mask, settled = find_stray_times(us(10, 9_999, 11, 12), None, 100, final=False)
    assert mask.tolist() == [False, True, False, False]
    assert settled == 4


def test_two_consecutive_stray_times_are_both_stray():
    mask, _ = find_stray_times(us(10, 9_999, 9_998, 11, 12), None, 100, final=False)
    assert mask.tolist() == [False, True, True, False, False]


def test_jump_confirmed_by_two_events_is_accepted():
    mask, settled = find_stray_times(us(10, 9_000, 9_001, 9_002, 12), None, 100, final=False)
    assert not mask.any()
    assert settled == 5


def test_jump_at_the_end_of_a_batch_waits_for_two_more_events():
    assert find_stray_times(us(10, 11, 9_000), None, 100, final=False)[1] == 2
    assert find_stray_times(us(10, 11, 9_000, 9_001), None, 100, final=False)[1] == 2


def test_jump_contradicted_by_one_event_needs_no_second_one():
    mask, settled = find_stray_times(us(10, 11, 9_000, 12), None, 100, final=False)
    assert (mask.tolist(), settled) == ([False, False, True, False], 4)


def test_jump_at_the_end_of_the_file_is_accepted():
    mask, settled = find_stray_times(us(10, 11, 9_000), None, 100, final=True)
    assert (mask.any(), settled) == (False, 3)


def test_first_event_in_the_far_future_does_not_make_the_others_late():
    mask, _ = find_stray_times(us(9_000, 10, 11), None, 100, final=False)
    assert mask.tolist() == [True, False, False]


def test_stored_watermark_applies_to_the_next_batch():
    assert find_stray_times(us(150, 20, 21), 100, 100, final=False)[0].tolist() == [False, False, False]
    assert find_stray_times(us(250, 20, 21), 100, 100, final=False)[0].tolist() == [True, False, False]
