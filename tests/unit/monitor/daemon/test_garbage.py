"""The garbage collector of the daemon: the objects of the start are excluded, later cycles are collected."""

import gc
import weakref

from monitor.daemon.garbage import collect_young_garbage, tuned_garbage_collection


class Cycle:
    def __init__(self) -> None:
        self.own = self


def test_the_objects_of_the_start_are_frozen_once_and_released_at_the_end() -> None:
    thresholds = gc.get_threshold()
    with tuned_garbage_collection():
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold()[0] > thresholds[0]
    assert gc.get_threshold() == thresholds
    assert gc.get_freeze_count() < 10_000


def test_a_cycle_of_a_running_daemon_is_collected_by_the_job() -> None:
    with tuned_garbage_collection():
        found = weakref.ref(Cycle())
        collect_young_garbage()
        assert found() is None
