"""Windows whose size and grace change with event time: disjoint, complete, and as before for constant rules."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from config.stream_rules import WindowRules
from consumers.window_schedule import WindowSchedule, make_window_schedule
from consumers.windows import ENDED_WATERMARK_US, NO_WATERMARK_US, watermark_before

MINUTE = 60
TIMES = st.lists(st.integers(0, 2_000), max_size=40).map(lambda values: np.array(values, np.int64))
BEFORE = st.none() | st.integers(0, 2_000)


def us(*values):
    return np.array(values, np.int64)


def constant(size: int, grace: int = 10, ahead: int = 0) -> WindowSchedule:
    return make_window_schedule((WindowRules(size_us=size, grace_us=grace, ahead_us=ahead),))


CHANGED = make_window_schedule(
    (
        WindowRules(size_us=10, grace_us=5, ahead_us=20),
        WindowRules(valid_from_us=70, size_us=14, grace_us=1, ahead_us=40),
        WindowRules(valid_from_us=140, size_us=35, grace_us=20, ahead_us=40),
    )
)


@st.composite
def schedules(draw: st.DrawFn) -> WindowSchedule:
    """Draw rules of which each begins at a boundary of its own windows and of those before it."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    rules, valid_from = [], None
    for before, size in zip([sizes[0], *sizes], sizes, strict=False):
        grace = draw(st.integers(0, 60))
        if not rules:
            rules.append(WindowRules(size_us=size, grace_us=grace, ahead_us=0))
            continue
        step = int(np.lcm(before, size))
        valid_from = -(-((valid_from or 0) + draw(st.integers(0, 300))) // step) * step
        rules.append(WindowRules(valid_from_us=valid_from, size_us=size, grace_us=grace, ahead_us=0))
    return make_window_schedule(tuple(rules))


def test_event_is_late_after_its_window_end_and_grace_pass_the_watermark():
    assert constant(MINUTE).late_mask(us(0, 0), us(69, 70), None).tolist() == [False, True]


def test_event_of_a_sealed_window_is_late_for_any_watermark():
    none = us(NO_WATERMARK_US, NO_WATERMARK_US)
    assert constant(MINUTE).late_mask(us(0, 60), none, 60).tolist() == [True, False]


def test_every_event_is_late_after_the_source_has_ended():
    assert constant(MINUTE).late_mask(us(10**15 // 60 * 60), us(ENDED_WATERMARK_US), None).tolist() == [True]


def test_times_before_a_change_have_windows_of_the_old_size_and_later_ones_of_the_new_size():
    starts = CHANGED.starts(us(0, 59, 69, 70, 83, 84, 139, 140, 174, 175))
    assert starts.tolist() == [0, 50, 60, 70, 70, 84, 126, 140, 140, 175]
    assert CHANGED.ends(starts).tolist() == [10, 60, 70, 84, 84, 98, 140, 175, 175, 210]


def test_a_late_event_of_an_old_window_has_the_old_size_and_grace():
    starts = CHANGED.starts(us(61, 61, 71, 71))
    assert starts.tolist() == [60, 60, 70, 70]
    assert CHANGED.late_mask(starts, us(74, 75, 84, 85), None).tolist() == [False, True, False, True]


def test_the_lead_is_that_of_the_windows_at_the_seal():
    assert [CHANGED.lead_end_us(sealed) for sealed in (None, 60, 70)] == [25, 85, 111]


def test_rules_without_a_window_between_them_have_no_effect():
    replaced = make_window_schedule(
        (
            WindowRules(size_us=10, grace_us=5, ahead_us=20),
            WindowRules(valid_from_us=70, size_us=7, grace_us=1, ahead_us=40),
            WindowRules(valid_from_us=70, size_us=14, grace_us=2, ahead_us=40),
        )
    )
    assert replaced.starts(us(69, 70, 83)).tolist() == [60, 70, 70]
    assert [replaced.passed_us(time) for time in (74, 75, 85, 86)] == [60, 70, 70, 84]


@settings(max_examples=30, deadline=None)
@given(TIMES, BEFORE, st.integers(1, 500), st.integers(0, 500), BEFORE)
def test_lateness_follows_its_definition(times, before, size, grace, sealed):
    marks, windows = watermark_before(times, before), constant(size, grace)
    late = windows.late_mask(windows.starts(times), marks, sealed)
    for time, mark, is_late in zip(times.tolist(), marks.tolist(), late.tolist(), strict=True):
        end = time - time % size + size
        assert is_late == (end + grace <= mark or (sealed is not None and end <= sealed))


@settings(max_examples=30, deadline=None)
@given(schedules())
def test_windows_are_disjoint_and_cover_all_times(windows):
    start, end = 0, windows.rules[-1].valid_from_us + 100
    while start < end:
        following = windows.end_us(start)
        inside = np.arange(start, following)
        assert (windows.starts(inside) == start).all()
        assert (windows.ends(windows.starts(inside)) == following).all()
        assert [windows.floor_us(following - 1), windows.ceil_us(start)] == [start, start]
        start = following


@settings(max_examples=30, deadline=None)
@given(schedules())
def test_the_passed_windows_are_those_of_which_every_grace_has_passed(windows):
    last = windows.rules[-1].valid_from_us + 100
    for now in range(0, last, 7):
        start = passed = windows.floor_us(-1_000)
        while start < now:
            end = windows.end_us(start)
            if end + windows.rules_at(start).grace_us > now:
                break
            start = passed = end
        assert windows.passed_us(now) == passed
