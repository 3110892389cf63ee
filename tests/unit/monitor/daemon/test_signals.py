"""The end of the process, as a signal asks for it."""

import signal
import subprocess
import sys

_PROGRAM = """
import os, signal, sys, threading
from monitor.daemon.signals import stop_on_signals
told = threading.Event()
with stop_on_signals(told.set, end_within_s={within_s}):
    for number in sys.argv[1:]:
        os.kill(os.getpid(), int(number))
    assert told.wait(30)
    {then}
print("ended in good order")
"""
_HANGS = "threading.Event().wait(60)"


def _run(then: str, *signals: signal.Signals, within_s: float) -> subprocess.CompletedProcess[str]:
    program = _PROGRAM.format(within_s=within_s, then=then)
    arguments = [sys.executable, "-c", program, *(str(int(number)) for number in signals)]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)


def test_a_signal_asks_for_the_end_and_no_more() -> None:
    ran = _run("pass", signal.SIGTERM, within_s=50)
    assert (ran.returncode, ran.stdout) == (0, "ended in good order\n"), ran.stderr


def test_the_second_signal_ends_it_at_once() -> None:
    assert _run(_HANGS, signal.SIGTERM, signal.SIGINT, within_s=50).returncode == 128 + signal.SIGINT


def test_what_still_hangs_a_while_after_the_signal_is_left_and_said() -> None:
    ran = _run(_HANGS, signal.SIGINT, within_s=0.2)
    assert ran.returncode == 1
    assert "still at work (MainThread): the database may not answer" in ran.stderr
