"""Examples of windows and watermarks."""

import numpy as np

from consumers.windows import (
    NO_WATERMARK_US,
    count_before_lead_end,
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
