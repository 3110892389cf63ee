"""The shutdown of the process by signals."""

import signal
import subprocess
import sys

_PROGRAM = """
import os, signal, sys, threading
from monitor.daemon.signals import stop_on_signals
stopped = threading.Event()
with stop_on_signals(stopped.set, end_within_s={within_s}):
    for number in sys.argv[1:]:
        os.kill(os.getpid(), int(number))
    assert stopped.wait(30)
    {then}
print("ended in good order")
"""
_HANGS = "threading.Event().wait(60)"


def _run(then: str, *signals: signal.Signals, within_s: float) -> subprocess.CompletedProcess[str]:
    program = _PROGRAM.format(within_s=within_s, then=then)
    arguments = [sys.executable, "-c", program, *(str(int(number)) for number in signals)]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)


def test_the_first_signal_requests_a_stop() -> None:
    ran = _run("pass", signal.SIGTERM, within_s=50)
    assert (ran.returncode, ran.stdout) == (0, "ended in good order\n"), ran.stderr


def test_the_second_signal_ends_the_process_at_once() -> None:
    assert _run(_HANGS, signal.SIGTERM, signal.SIGINT, within_s=50).returncode == 128 + signal.SIGINT


def test_a_process_that_hangs_after_a_signal_exits_with_an_error_in_the_log() -> None:
    ran = _run(_HANGS, signal.SIGINT, within_s=0.2)
    assert ran.returncode == 1
    assert "these threads still run: MainThread. The database may not answer" in ran.stderr
