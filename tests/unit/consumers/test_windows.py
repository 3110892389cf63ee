"""Windows, watermarks and stray times by example."""

import numpy as np

from consumers.windows import (
    ENDED_WATERMARK_US,
    NO_WATERMARK_US,
    count_before_lead_end,
    find_stray_times,
    late_mask,
    watermark_before,
    window_start,
)

MINUTE = 60


def us(*values):
    return np.array(values, np.int64)


def test_an_event_at_the_boundary_belongs_to_the_window_that_begins_there():
    assert window_start(us(0, 59, 60, 119), MINUTE).tolist() == [0, 0, 60, 60]


def test_without_an_event_there_is_no_watermark():
    assert watermark_before(us(5, 3, 9), None).tolist() == [NO_WATERMARK_US, 5, 5]
    assert watermark_before(us(), 7).tolist() == []


def test_an_event_does_not_raise_its_own_watermark():
    assert watermark_before(us(100, 50), 10).tolist() == [10, 100]


def test_an_event_is_late_once_its_window_and_grace_have_passed_its_sources_watermark():
    watermark = us(69, 70)
    assert late_mask(us(30, 30), MINUTE, 10, watermark, None).tolist() == [False, True]


def test_an_event_of_a_sealed_window_is_late_whatever_the_watermark():
    none = us(NO_WATERMARK_US, NO_WATERMARK_US)
    assert late_mask(us(59, 60), MINUTE, 10, none, 60).tolist() == [True, False]


def test_after_a_source_has_ended_every_event_would_be_late():
    assert late_mask(us(10**15), MINUTE, 10, us(ENDED_WATERMARK_US), None).tolist() == [True]


def test_the_lead_is_cut_at_the_limit_even_where_later_events_lie_before_it():
    assert count_before_lead_end(us(1, 2, 10, 3), 10) == 2
    assert count_before_lead_end(us(1, 2), 10) == 2
    assert count_before_lead_end(us(), 10) == 0


def test_one_jump_that_the_next_events_contradict_is_stray():
    mask, settled = find_stray_times(us(10, 9_999, 11, 12), None, 100, final=False)
    assert mask.tolist() == [False, True, False, False]
    assert settled == 4


def test_two_stray_times_in_a_row_are_both_stray():
    mask, _ = find_stray_times(us(10, 9_999, 9_998, 11, 12), None, 100, final=False)
    assert mask.tolist() == [False, True, True, False, False]


def test_a_jump_that_two_more_events_agree_with_is_believed():
    mask, settled = find_stray_times(us(10, 9_000, 9_001, 9_002, 12), None, 100, final=False)
    assert not mask.any()
    assert settled == 5


def test_a_jump_at_the_end_waits_for_two_more_events():
    assert find_stray_times(us(10, 11, 9_000), None, 100, final=False)[1] == 2
    assert find_stray_times(us(10, 11, 9_000, 9_001), None, 100, final=False)[1] == 2


def test_a_jump_that_one_following_event_contradicts_needs_no_second_one():
    mask, settled = find_stray_times(us(10, 11, 9_000, 12), None, 100, final=False)
    assert (mask.tolist(), settled) == ([False, False, True, False], 4)


def test_at_the_end_of_the_file_a_last_jump_is_believed():
    mask, settled = find_stray_times(us(10, 11, 9_000), None, 100, final=True)
    assert (mask.any(), settled) == (False, 3)


def test_a_first_event_of_the_far_future_does_not_make_the_rest_late():
    mask, _ = find_stray_times(us(9_000, 10, 11), None, 100, final=False)
    assert mask.tolist() == [True, False, False]


def test_a_stored_watermark_goes_on_to_judge_the_next_batch():
    assert find_stray_times(us(150, 20, 21), 100, 100, final=False)[0].tolist() == [False, False, False]
    assert find_stray_times(us(250, 20, 21), 100, 100, final=False)[0].tolist() == [True, False, False]
