"""The shutdown of a daemon with a full pipe on standard error."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.stored import StoredRows
from tests.servers.process import die_with_parent, wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

SUPERVISOR_TIMEOUT_S = 30.0


@pytest.fixture
def unread_pipe() -> Iterator[tuple[int, int]]:
    """The two ends of a pipe that is not read."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def _fill(writer: int) -> None:
    """Fill the pipe without a change of the mode that the daemon shares."""
    own = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        for size in (4096, 1):
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(own, b"x" * size)
    finally:
        os.close(own)


@pytest.mark.parametrize("log_continues", [True, False], ids=["while it logs", "at its last line"])
def test_sigterm_ends_a_daemon_with_a_full_pipe_on_standard_error_in_time(
    tmp_path: Path, stored_in_sqlite: StoredRows, unread_pipe: tuple[int, int], log_continues: bool
) -> None:
    stored, (_, writer) = stored_in_sqlite, unread_pipe
    source = {"type": "synthetic", "rate": 1_000}
    model = {"n_components": 1, "warm_up": 1_000}
    streams = {"payments": {"source": source, "model": model, "window": {"size": "1s"}}}
    if log_continues:  # an unreachable broker is logged each second
        streams["orders"] = {"source": {"type": "kafka", "topics": ["orders"]}}
    kafka = {"bootstrap_servers": ["127.0.0.1:9"], "client": {"bootstrap_timeout_ms": 100}}
    config = tmp_path / "outrider.yaml"
    config.write_text(
        json.dumps({"database": {"url": stored.url}, "device": "cpu", "kafka": kafka, "streams": streams})
    )
    with subprocess.Popen(
        [sys.executable, "-m", "monitor.cli.main", "-c", str(config), "run"],
        stdin=subprocess.DEVNULL,
        stderr=writer,
        preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 -- calls prctl, nothing else
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as daemon:
        try:
            wait_until(lambda: stored.progress() > 0, within_s=120, what="the first commit")
            _fill(writer)
            begin_s = time.monotonic()
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(60) == 1
            assert time.monotonic() - begin_s < SUPERVISOR_TIMEOUT_S
        finally:
            daemon.kill()
    assert stored.count("scores") == stored.progress(), "the positions match the stored scores"
