"""Decisions depend on the events only, not on the speed of reading or on restarts."""

from collections.abc import Callable

import pytest

from tests.daemon.process import DaemonProcess
from tests.daemon.stored import StoredRows, TableDump, differences
from tests.faults.conftest import FilledTopic

pytestmark = [pytest.mark.fault, pytest.mark.timeout(1800)]


@pytest.mark.parametrize(
    "database_url",
    ["sqlite", pytest.param("postgresql", marks=[pytest.mark.postgres, pytest.mark.long])],
    indirect=True,
)
@pytest.mark.parametrize("restarts", [1, pytest.param(10, marks=pytest.mark.long)])
def test_slow_run_with_restarts_decides_the_same_as_a_fast_run(
    restarts: int,
    topic: FilledTopic,
    reference: TableDump,
    stored: StoredRows,
    run_daemon: Callable[..., DaemonProcess],
) -> None:
    # 37 records per poll divide batches and commits differently from the reference's 200.
    daemon = run_daemon(topic.settings(stored.url, max_poll_records=37))
    for i in range(1, restarts + 1):
        target = i * topic.records // (restarts + 1)
        daemon.wait_until(lambda target=target: stored.progress() > target, f"{target} offsets")  # type: ignore[misc]
        assert daemon.terminate() == 0
        daemon.start()
    daemon.wait_until(lambda: stored.is_settled(topic.records), "the topic is drained")
    assert daemon.terminate() == 0
    assert differences(stored.dump(), reference) == {}
