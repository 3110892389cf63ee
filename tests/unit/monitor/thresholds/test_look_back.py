"""The look-back: adding and evicting windows, and the selection of the windows that count."""

import numpy as np
import pytest

from monitor.statistics.part import Scale, summarise
from monitor.thresholds.look_back import LookBack, count_above, select_calibration_windows

SCALE = Scale(median=8.0, iqr=4.0)
MINUTE = 60_000_000
HOUR = 60 * MINUTE
STARTS = np.arange(24 * 60, dtype=np.int64) * MINUTE
ENDS = STARTS + MINUTE
DAY = 24 * HOUR


def select(
    *incidents: tuple[int, int | None], at_us: int = DAY, look_back_us: int = DAY, adopt_after_us: int = DAY
) -> np.ndarray:
    return select_calibration_windows(
        STARTS, ENDS, incidents, at_us, look_back_us=look_back_us, adopt_after_us=adopt_after_us
    )


def test_window_can_be_added_once() -> None:
    look_back = LookBack(SCALE)
    energies = np.arange(300, dtype=np.float32)
    look_back.add(60, summarise(energies, energies > 20, SCALE))
    with pytest.raises(ValueError, match="evict it before"):
        look_back.add(60, look_back.part(60))
    look_back.evict(60)
    assert (len(look_back), look_back.sketch().n) == (0, 0)
    with pytest.raises(KeyError):
        look_back.evict(60)


def test_outliers_of_each_window_are_counted_at_a_new_threshold() -> None:
    look_back = LookBack(SCALE)
    for window, shift in enumerate((0, 50, 100)):
        energies = np.arange(1000, dtype=np.float32) / 10 - shift
        look_back.add(window, summarise(energies, energies > 20, SCALE))
    assert look_back.count_by_window([0, 1, 2], 90.05)[1].tolist() == [99, 0, 0]
    assert look_back.count_by_window([1], 10.0)[1].tolist() == [pytest.approx(399, abs=3)]


def test_look_back_lists_its_windows() -> None:
    look_back = LookBack(SCALE)
    for window in (0, 60, 120):
        energies = np.arange(100 + window, dtype=np.float32)
        look_back.add(window, summarise(energies, energies > 20, SCALE))
    look_back.evict(60)
    assert look_back.windows == [0, 120]
    assert (0 in look_back, 60 in look_back) == (True, False)
    assert look_back.count_by_window([120, 0], 0.0)[0].tolist() == [220, 100]


def test_count_above_is_exact_within_the_list_of_largest_energies() -> None:
    energies = np.arange(1000, dtype=np.float32)
    part = summarise(energies, energies > 20, SCALE)
    assert [count_above(part, SCALE, energy) for energy in (744.0, 800.5, 999.0, 5000.0)] == [255, 199, 0, 0]
    assert count_above(part, SCALE, 400.0) == pytest.approx(599, abs=6)
    assert count_above(part, SCALE, -1.0) == 1000


def test_windows_count_if_they_lie_between_look_back_start_and_tick() -> None:
    mask = select(at_us=2 * HOUR + 1, look_back_us=HOUR)
    assert (STARTS[mask].min(), ENDS[mask].max(), mask.sum()) == (HOUR + MINUTE, 2 * HOUR, 59)


def test_windows_of_an_open_incident_are_excluded() -> None:
    mask = select((20 * HOUR, 21 * HOUR))
    assert mask.sum() == 23 * 60
    assert not mask[(STARTS >= 20 * HOUR) & (STARTS < 21 * HOUR)].any()


def test_firing_incident_excludes_windows_up_to_the_tick() -> None:
    assert select((23 * HOUR, None)).sum() == 23 * 60


def test_incidents_exclude_at_most_the_newest_quarter_of_the_look_back() -> None:
    mask = select((4 * HOUR, None))
    assert mask.sum() == 18 * 60
    assert mask[: 18 * 60].all()


def test_count_models_may_exclude_all_windows_of_open_incidents() -> None:
    mask = select_calibration_windows(
        STARTS, ENDS, [(4 * HOUR, None)], DAY, look_back_us=DAY, adopt_after_us=DAY, max_excluded_share=1
    )
    assert mask.sum() == 4 * 60


def test_windows_of_a_lasting_incident_count_again() -> None:
    assert select((20 * HOUR, None), adopt_after_us=4 * HOUR).all()
    assert not select((20 * HOUR, None), adopt_after_us=4 * HOUR + 1).all()


def test_empty_stream_has_no_windows_to_count() -> None:
    none = np.empty(0, np.int64)
    assert select_calibration_windows(none, none, [(0, None)], DAY, look_back_us=DAY, adopt_after_us=DAY).sum() == 0
