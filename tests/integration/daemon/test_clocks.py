"""A real topic with one record of a clock that is 50 minutes ahead, and one with an event per hour."""

import json
import os
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.daemon.events import FEATURES, produce_records
from tests.daemon.process import DaemonProcess
from tests.daemon.settings import kafka_settings
from tests.daemon.stored import StoredRows
from tests.servers.kafka import KafkaServer
from tests.servers.process import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

N_EVENTS = 2_000
_OPEN_WINDOWS = "SELECT count(DISTINCT window_start_us) FROM window_parts"
_BURST = slice(1_700, 1_800)


def _records(step_s: float, stray: int | None = None) -> list[bytes]:
    """Return events in order up to now, with a burst of 30% outliers; the time of one of them is 50 minutes ahead."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(N_EVENTS, len(FEATURES)))
    in_burst = np.zeros(N_EVENTS, np.bool_)
    in_burst[_BURST] = rng.random(_BURST.stop - _BURST.start) < 0.3
    x[in_burst] += 9.0
    times_s = time.time() - step_s * np.arange(N_EVENTS, 0, -1)
    if stray is not None:
        times_s[stray] += 3_000
    return [
        json.dumps({"ts": int(1e6 * time_s), "id": i, **dict(zip(FEATURES, row, strict=True))}).encode()
        for i, (time_s, row) in enumerate(zip(times_s.tolist(), x.round(6).tolist(), strict=True))
    ]


def _run(server: KafkaServer, folder: Path, records: list[bytes], partitions: int, **stream: object) -> StoredRows:
    """Run a daemon over a backlog until every record is stored; return the rows."""
    topic = f"clocks-{os.urandom(4).hex()}"
    server.create_topic(topic, partitions)
    produce_records(server, topic, records, partitions)
    url = f"sqlite:///{folder / 'outrider.db'}"
    daemon = DaemonProcess(folder, kafka_settings(url, server.bootstrap, topic, **stream)).start()
    stored = StoredRows(url)
    try:
        wait_until(lambda: stored.progress() == len(records), within_s=120, what="every record is stored")
        # The window of the present time stays open.
        wait_until(lambda: stored.number(_OPEN_WINDOWS) <= 1, within_s=60, what="the windows are judged")
    finally:
        daemon.terminate()
    return stored


@pytest.mark.parametrize("partitions", [1, 4])
def test_one_record_ahead_makes_no_other_event_late_and_the_later_burst_is_found(
    kafka_server: KafkaServer, tmp_path: Path, partitions: int
) -> None:
    with closing(_run(kafka_server, tmp_path, _records(0.25, stray=1_100), partitions)) as stored:
        assert stored.rows("SELECT source_offset, reason FROM dead_letter_history") == [
            (1_100 // partitions, "future_time")
        ]
        assert stored.count("score_history") == N_EVENTS - 1
        assert stored.number("SELECT sum(late) FROM windows") == 0
        assert stored.number("SELECT count(*) FROM incidents WHERE kind = 'spike'") > 0


def test_an_hourly_stream_goes_on(kafka_server: KafkaServer, tmp_path: Path) -> None:
    window = {"size": "6h", "grace": "10s", "ahead": "1d", "idle_timeout": "2s"}
    threshold = {"refresh": "1d", "look_back": "30d", "percentile": 99}
    records = _records(3_600.0)
    with closing(_run(kafka_server, tmp_path, records, 1, window=window, threshold=threshold)) as stored:
        assert stored.count("score_history") == N_EVENTS
        assert stored.count("dead_letters") == 0
        assert stored.number("SELECT sum(late) FROM windows") == 0
