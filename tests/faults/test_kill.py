"""The daemon is killed repeatedly while it warms up, drains a topic and judges."""

import itertools
import random
from collections.abc import Callable

import pytest

from tests.daemon.process import DaemonProcess
from tests.daemon.stored import StoredRows, TableDump, differences, duplicates_and_missing
from tests.faults.conftest import FilledTopic

pytestmark = pytest.mark.fault


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.long)])
def test_killed_daemon_stores_the_same_rows_as_an_undisturbed_run(
    kills: int, topic: FilledTopic, reference: TableDump, stored: StoredRows, run_daemon: Callable[..., DaemonProcess]
) -> None:
    rng = random.Random(kills)
    # The first runs are killed in the warm-up, the others at random progress of draining, sealing and judging.
    warm_ups = max(1, kills // 5)
    progress = sorted(rng.uniform(0, 0.95) for _ in range(kills - warm_ups))
    daemon = run_daemon(topic.settings(stored.url))
    for share in itertools.chain([None] * warm_ups, progress):
        if share is None:
            daemon.wait_until(lambda: stored.count("streams") > 0, "the stream is registered")
        else:
            target = share * topic.records
            daemon.wait_until(lambda target=target: stored.progress() > target, f"{target:.0f} offsets")  # type: ignore[misc]
        assert daemon.runs_for(rng.uniform(0, 0.5)), daemon.tail()
        daemon.kill()
        daemon.start()
    daemon.wait_until(lambda: stored.is_settled(topic.records), "the topic is drained")
    assert daemon.terminate() == 0
    dump = stored.dump()
    assert duplicates_and_missing(dump, topic.expected) == ([], 0)
    assert differences(dump, reference) == {}
