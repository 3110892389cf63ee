"""The schedule of thresholds: which row applies to a window, and changes of the rows."""

import numpy as np

from monitor.pipeline.threshold_schedule import ThresholdSchedule
from tests.unit.monitor.pipeline.test_fold import threshold


def test_of_rows_valid_from_the_same_time_the_last_one_applies() -> None:
    schedule = ThresholdSchedule.from_rows(
        [threshold(3, valid_from_us=50), threshold(1), threshold(2, valid_from_us=50)]
    )
    assert schedule.threshold_ids[schedule.rows_at(np.array([49, 50, 51]))].tolist() == [1, 3, 3]


def test_the_first_row_is_valid_for_all_earlier_windows() -> None:
    schedule = ThresholdSchedule.from_rows([threshold(1, valid_from_us=100), threshold(2, valid_from_us=200)])
    assert schedule.rows_at(np.array([-5, 0, 99, 100, 199, 200])).tolist() == [0, 0, 0, 0, 0, 1]


def test_further_rows_are_inserted_in_order_of_validity() -> None:
    schedule = ThresholdSchedule.from_rows([threshold(1), threshold(2, valid_from_us=100)])
    later = schedule.extend([threshold(3, valid_from_us=50)])
    assert later.threshold_ids.tolist() == [1, 3, 2]
    assert later.newest_id == 3
    assert schedule.extend([]) is schedule


def test_an_extended_schedule_drops_the_rows_that_are_valid_only_before_the_seal() -> None:
    schedule = ThresholdSchedule.from_rows([threshold(i, valid_from_us=100 * i) for i in (1, 2, 3)])
    later = schedule.extend([threshold(4, valid_from_us=400)], sealed_until_us=250)
    assert later.threshold_ids.tolist() == [2, 3, 4]
    assert later.complete_from_us == 200
    assert schedule.extend([threshold(4, valid_from_us=400)], sealed_until_us=50).threshold_ids.tolist() == [1, 2, 3, 4]


def test_rows_of_late_windows_are_added_to_a_trimmed_schedule() -> None:
    trimmed = ThresholdSchedule.from_rows([threshold(7, valid_from_us=700)], complete_from_us=700)
    complete = trimmed.with_rows([threshold(2, valid_from_us=200), threshold(7, valid_from_us=700)])
    assert complete.threshold_ids[complete.rows_at(np.array([250, 699, 700]))].tolist() == [2, 2, 7]


def test_a_schedule_is_complete_with_the_rows_that_retention_has_left() -> None:
    trimmed = ThresholdSchedule.from_rows([threshold(7, valid_from_us=700)], complete_from_us=700)
    complete = trimmed.with_rows([threshold(7, valid_from_us=700)])
    assert complete.threshold_ids.tolist() == [7]
    assert complete.complete_from_us < 0
