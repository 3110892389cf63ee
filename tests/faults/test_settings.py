"""Two processes with different files: a rolling change of the windows and the percentile, and its rollback.

Both processes must fold into the same windows at each event time, whichever file each of them has.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from tests.daemon.events import START_US, BurstStream, produce_records
from tests.daemon.process import DaemonProcess
from tests.daemon.settings import kafka_settings
from tests.daemon.stored import StoredRows
from tests.faults.conftest import PARTITIONS
from tests.servers.kafka import KafkaServer

pytestmark = [pytest.mark.fault, pytest.mark.long, pytest.mark.timeout(900)]

SECOND = 1_000_000
OLD, NEW = 10 * SECOND, 15 * SECOND
THRESHOLD = {"refresh": "1m", "look_back": "20m"}


def read_status(daemon: DaemonProcess) -> list[dict[str, Any]]:
    """Return the processes that `outrider status` lists."""
    command = [sys.executable, "-m", "monitor.cli.main", "-c", str(daemon.config), "status", "--format", "json"]
    (row,) = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    replicas: list[dict[str, Any]] = row["replicas"]
    return replicas


def test_processes_with_different_files_fold_into_the_same_windows(
    kafka_server: KafkaServer, stored_in_postgres: StoredRows, run_daemon: Callable[..., DaemonProcess]
) -> None:
    stored, topic = stored_in_postgres, "rolling"
    kafka_server.create_topic(topic, PARTITIONS)
    # In the order of time, so that no event is late: the events of a window are the rows with its times.
    records = sorted(BurstStream(events=8_000).records(), key=lambda record: json.loads(record)["ts"])
    # No partition becomes idle between two shares of the records, which would seal the window that they share.
    waiting = {"ahead": "1m", "idle_timeout": "1h"}
    old = kafka_settings(stored.url, kafka_server.bootstrap, topic, window={"size": "10s", "grace": "10s", **waiting})
    new = kafka_settings(
        stored.url,
        kafka_server.bootstrap,
        topic,
        window={"size": "15s", "grace": "5s", **waiting},
        threshold={**THRESHOLD, "percentile": 98},
    )
    produced = 0

    def produce(until: int, daemon: DaemonProcess) -> None:
        """Produce records up to a number, and wait until they are stored."""
        nonlocal produced
        share = records[produced:until]
        produce_records(kafka_server, topic, share, PARTITIONS)
        produced = until
        daemon.wait_until(lambda: stored.progress() >= until, f"{until} records are stored")

    def revision() -> int:
        return stored.number("SELECT max(revision) FROM settings")

    first, second = run_daemon(old, "first"), run_daemon(old, "second")
    produce(2_000, first)
    assert revision() == 1, "both files have the same settings"

    assert first.terminate() == 0
    upgraded = run_daemon(new, "upgraded")
    upgraded.wait_until(lambda: revision() == 2, "the new file is proposed")
    produce(3_000, upgraded)
    second.kill()
    second.start()
    second.wait_until(lambda: "follows the stored settings" in second.log, "the old file adopts the stored settings")
    produce(5_000, upgraded)
    other = [each["owner"] for each in read_status(upgraded) if each["has_other_settings"]]
    assert len(other) == 1, "status lists the process with the old file"
    assert f":{second.pid}:" in other[0]
    assert revision() == 2, "a restarted process with the old file changes nothing"

    assert upgraded.terminate() == 0
    second.wait_until(lambda: revision() == 3, "the old file is the settings again once the new process has ended")
    produce(len(records), second)
    last_us = START_US + 1_960 * SECOND
    judged = "SELECT max(window_end_us) FROM windows WHERE judged_at_us IS NOT NULL"
    second.wait_until(lambda: stored.number(judged) >= last_us, "the windows of all but the last events are judged")
    assert [each["has_other_settings"] for each in read_status(second)] == [False]
    assert second.terminate() == 0

    windows = stored.rows("SELECT window_start_us, window_end_us, events, late FROM windows ORDER BY 1")
    assert all(end <= following for (_, end, *_), (following, *_) in pairwise(windows)), "no two windows overlap"
    sizes = [end - start for start, end, *_ in windows]
    assert [size for size, following in pairwise([*sizes, 0]) if size != following] == [OLD, NEW, OLD]
    rows = stored.rows(
        "SELECT w.window_start_us, w.window_end_us, (SELECT count(*) FROM scores s WHERE "
        "s.event_time_us >= w.window_start_us AND s.event_time_us < w.window_end_us), 0 FROM windows w ORDER BY 1"
    )
    assert rows == windows, "the rows of each window are its events, and no event is late"
    n_open = stored.number("SELECT sum(events) FROM window_parts")
    assert sum(events for *_, events, _ in windows) + n_open == stored.count("scores") == len(records)
    percentiles = stored.rows("SELECT percentile FROM thresholds ORDER BY valid_from_us, id")
    changes = [value for (value,), (following,) in pairwise([*percentiles, (None,)]) if value != following]
    assert changes == [99.0, 98.0, 99.0]
