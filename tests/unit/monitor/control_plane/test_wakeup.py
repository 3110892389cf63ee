"""The pace of the control thread: by need, at most four steps a second, and at least one a second."""

import threading

from monitor.control_plane.wakeup import INTERVAL_S, MIN_INTERVAL_S, ControlWakeup


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def started() -> tuple[ControlWakeup, Clock]:
    """Return a wakeup whose step has just started."""
    clock = Clock()
    wakeup = ControlWakeup(clock)
    wakeup.wait()
    return wakeup, clock


def test_the_first_step_is_due_at_once() -> None:
    assert ControlWakeup(Clock()).due_in_s() <= 0


def test_a_step_without_need_is_due_after_the_longest_interval() -> None:
    wakeup, clock = started()
    clock.now_s += 0.5
    assert wakeup.due_in_s() == INTERVAL_S - 0.5


def test_a_needed_step_is_due_after_the_shortest_interval() -> None:
    wakeup, clock = started()
    clock.now_s += 0.1
    wakeup.ask(urgent=False)
    assert abs(wakeup.due_in_s() - (MIN_INTERVAL_S - 0.1)) < 1e-9
    clock.now_s += 5.0
    assert wakeup.due_in_s() <= 0


def test_an_urgent_step_is_due_at_once_and_once() -> None:
    wakeup, _ = started()
    wakeup.ask(urgent=True)
    wakeup.ask(urgent=False)
    assert wakeup.due_in_s() == 0.0
    wakeup.wait()
    assert wakeup.due_in_s() == INTERVAL_S


def test_a_waiting_thread_is_woken_by_an_urgent_step() -> None:
    wakeup = ControlWakeup(lambda: 100.0)  # a clock that stands still: only the urgent step ends the wait
    wakeup.wait()
    thread = threading.Thread(target=wakeup.wait, daemon=True)
    thread.start()
    wakeup.ask(urgent=True)
    thread.join(20)
    assert not thread.is_alive()
