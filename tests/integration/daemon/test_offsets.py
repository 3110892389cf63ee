"""`outrider offsets`: show positions with their lag, and reset them under a running daemon."""

import csv
import io
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.daemon.events import START_US
from tests.daemon.process import DaemonProcess
from tests.daemon.settings import STREAM, kafka_settings
from tests.daemon.stored import StoredRows
from tests.integration.daemon.conftest import PLAIN
from tests.servers.kafka import KafkaServer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]


def run_offsets(daemon: DaemonProcess, *arguments: str, code: int = 0) -> str:
    """Return the output of `outrider offsets ...` with the daemon's configuration."""
    completed = subprocess.run(
        [sys.executable, "-m", "monitor.cli.main", "-c", str(daemon.config), "offsets", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert completed.returncode == code, completed.stderr
    return completed.stdout + completed.stderr


def parse_table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_reset_under_a_running_daemon_reads_again_and_leaves_the_old_rows(
    kafka_server: KafkaServer, plain_topic: str, stored: StoredRows, run_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = run_daemon(kafka_settings(stored.url, kafka_server.bootstrap, plain_topic))
    daemon.wait_until(lambda: stored.is_settled(PLAIN.events), "the topic is drained")
    quarter = PLAIN.events // 4
    assert [
        (row["next_offset"], row["log_end"], row["lag"])
        for row in parse_table(run_offsets(daemon, STREAM, "--format", "csv"))
    ] == [(str(quarter), str(quarter), "0")] * 4
    middle = START_US + PLAIN.seconds * 500_000
    planned = run_offsets(daemon, "reset", STREAM, "--to", "1970-01-01T00:00:01Z", "--dry-run")
    assert planned.count("would go") == 4
    assert {row["incarnation"] for row in parse_table(run_offsets(daemon, "show", STREAM, "--format", "csv"))} == {"1"}

    output = run_offsets(daemon, "reset", STREAM, "--to", "earliest")
    assert output.count(f"from offset {quarter:,} (incarnation 1) to offset 0 (incarnation 2)") == 4
    count_second = "SELECT count(*) FROM score_history WHERE incarnation = 2"
    daemon.wait_until(lambda: stored.number(count_second) == PLAIN.events, "everything is scored again")
    assert stored.number("SELECT count(*) FROM score_history WHERE incarnation = 1") == PLAIN.events
    energies = "SELECT partition, source_offset, energy FROM score_history WHERE incarnation = :which ORDER BY 1, 2"
    assert stored.rows(f"{energies} LIMIT 500", which=1) == stored.rows(f"{energies} LIMIT 500", which=2)
    sum_late = "SELECT sum(late) FROM window_history"
    daemon.wait_until(lambda: stored.number(sum_late) >= PLAIN.events, "the events that are read again count as late")

    run_offsets(daemon, "reset", STREAM, "--to", str(quarter - 7), "--partition", "2")
    count_third = "SELECT count(*) FROM score_history WHERE incarnation = 3 AND partition = 2"
    daemon.wait_until(lambda: stored.number(count_third) == 7, "seven events of one partition are read a third time")
    assert daemon.terminate() == 0
    assert stored.number("SELECT count(*) FROM score_history WHERE event_time_us > :middle", middle=middle) > 0


def test_reset_to_an_invalid_position_is_an_error_that_names_the_remedy(
    kafka_server: KafkaServer, plain_topic: str, stored_in_sqlite: StoredRows, run_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = run_daemon(kafka_settings(stored_in_sqlite.url, kafka_server.bootstrap, plain_topic))
    daemon.wait_until(lambda: stored_in_sqlite.count("positions") == 4, "the partitions are registered")
    assert daemon.terminate() == 0
    beyond = run_offsets(daemon, "reset", STREAM, "--to", "999999", "--partition", "1", code=2)
    assert "has offsets 0 to 2,000; 999,999 is outside" in beyond
    assert "choose one with --partition" in run_offsets(daemon, "reset", STREAM, "--to", "3", code=2)
    assert "has no such partition" in run_offsets(
        daemon, "reset", STREAM, "--to", "earliest", "--partition", "9", code=2
    )
    assert "did you mean payments?" in run_offsets(daemon, "reset", "paymets", "--to", "earliest", code=2)
    assert "or an offset" in run_offsets(daemon, "reset", STREAM, "--to", "yesterday", code=2)
