"""Status line of `outrider run`: text, rate, and place below the log."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from monitor.cli.run_status_line import RateTracker, format_status_line
from storage.control.models import ModelStore
from storage.control.warm_up import RejectedRecords, WarmUpProgress
from storage.database.engine import Database
from storage.queries.status import StreamStatus, load_stream_status
from tests.unit.monitor.cli.payments_stream import PaymentsStream


def load_status(payments: PaymentsStream) -> StreamStatus:
    return load_stream_status(payments.db, payments.stream.id, lease="control:payments")


@pytest.mark.slow
def test_running_stream_shows_rate_threshold_and_open_incidents(payments: PaymentsStream) -> None:
    line = format_status_line(load_status(payments), 20.4)
    assert line.startswith("payments: 20 records/s, last event ")
    assert "threshold " in line
    assert line.endswith("1 incident open")


def test_warm_up_shows_its_progress(db: Database, config: Path) -> None:
    payments = PaymentsStream(db, config)
    assert format_status_line(load_status(payments), None) == "payments is starting"
    ModelStore(db).report_warm_up(payments.stream.id, WarmUpProgress(events=1_234, wanted=10_000, left_s=2_400.0))
    assert (
        format_status_line(load_status(payments), 0.0)
        == "payments warming up: 1,234 of 10,000 events, about 40 min left"
    )


def test_warm_up_shows_rejected_records(db: Database, config: Path) -> None:
    payments = PaymentsStream(db, config)
    rejected = RejectedRecords(reason="not_json", n=12, detail="a\x1b[31m")
    progress = WarmUpProgress(events=0, wanted=500, records=12, rejected=12, rejections=(rejected,))
    ModelStore(db).report_warm_up(payments.stream.id, progress)
    line = format_status_line(load_status(payments), None)
    assert line == "payments warming up: 0 of 500 events, all 12 records rejected: not_json 12 (a\\x1b[31m)"


def test_rate_is_known_from_the_second_observation_on(payments: PaymentsStream) -> None:
    rates = RateTracker()
    before = load_status(payments)
    assert rates.update(before, 0.0) is None
    payments.commit_minute()
    assert rates.update(load_status(payments), 6.0) == pytest.approx(10.0)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a pseudo-terminal")
def test_line_is_below_the_log_on_a_terminal_until_the_daemon_ends(tmp_path: Path) -> None:
    (tmp_path / "outrider.yaml").write_text(
        "streams: {readings: {source: {type: synthetic, rate: 500, burst_share: 0, features: 2}, "
        "event: {time: {field: ts}}, model: {n_components: 1, warm_up: 500}}}"
    )
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "monitor.cli.main", "run"]
    home = str(Path(__file__).resolve().parents[4])
    environment = {**os.environ, "PYTHONPATH": home, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(command, cwd=tmp_path, stderr=theirs, stdin=theirs, env=environment) as process:
        os.close(theirs)
        output = read_until(ours, "no incidents open")
        process.terminate()
        output += read_until(ours, None)
        assert process.wait(30) == 0, output
    assert "Starting stream readings; results go to sqlite:///outrider.db" in output
    assert "fitted gaussian_mixture" in output
    assert "readings: " in output
    assert "Stopped;" in output


def read_until(terminal: int, text: str | None) -> str:
    """Read until the text appears or the output ends; give up after two minutes."""
    output = ""
    deadline_s = time.monotonic() + 120
    while (text is None or text not in output) and time.monotonic() < deadline_s:
        if select.select([terminal], [], [], 0.5)[0]:
            try:
                output += os.read(terminal, 65_536).decode(errors="replace")
            except OSError:  # the other side is closed
                return output
    assert text is None or text in output, output
    return output
