"""The shutdown and the reload of the process by signals."""

import os
import signal
import subprocess
import sys
import time

import pytest

_PROGRAM = """
import ctypes, hashlib, logging, os, signal, sys, threading, time
from monitor.daemon.signals import stop_on_signals
{before}
stopped = threading.Event()
with stop_on_signals(stopped.set, reload={reload}, end_within_s={within_s}):
    for number in sys.argv[1:]:
        os.kill(os.getpid(), int(number))
    assert stopped.wait(30)
    {then}
{after}
print("ended in good order")
"""
_HANGS = "threading.Event().wait(60)"
_LOG = "logging.basicConfig(level=logging.INFO)"
_WORKER = "threading.Thread(target=lambda: logging.info('x' * 1_000_000), daemon=True).start()"


def _program(then: str, *, within_s: float, before: str = "", after: str = "", reload: str = "None") -> str:
    return _PROGRAM.format(within_s=within_s, then=then, before=before, after=after, reload=reload)


def _run(
    then: str, *signals: signal.Signals, within_s: float, reload: str = "None"
) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-c", _program(then, within_s=within_s, reload=reload), *map(str, map(int, signals))]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)


def test_the_first_signal_requests_a_stop() -> None:
    ran = _run("pass", signal.SIGTERM, within_s=50)
    assert (ran.returncode, ran.stdout) == (0, "ended in good order\n"), ran.stderr


def test_the_second_signal_ends_the_process_at_once() -> None:
    assert _run(_HANGS, signal.SIGTERM, signal.SIGINT, within_s=50).returncode == 128 + signal.SIGINT


def test_a_process_that_hangs_after_a_signal_exits_with_an_error_in_the_log() -> None:
    ran = _run(_HANGS, signal.SIGINT, within_s=0.2)
    assert ran.returncode == 1
    assert "these threads still run: MainThread. The database or" in ran.stderr


def test_sighup_requests_a_reload_each_time_and_no_stop() -> None:
    signals = (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM)
    ran = _run("pass", *signals, within_s=50, reload="lambda: print('reload', flush=True)")
    assert (ran.returncode, ran.stdout) == (0, "reload\nreload\nended in good order\n"), ran.stderr


def test_handlers_are_restored_when_no_signal_has_arrived() -> None:
    program = """
import signal
from monitor.daemon.signals import stop_on_signals
numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
before = [signal.getsignal(number) for number in numbers]
for _ in range(2):
    with stop_on_signals(lambda: None, reload=lambda: None, end_within_s=0.0):
        pass
assert [signal.getsignal(number) for number in numbers] == before
assert signal.set_wakeup_fd(-1) == -1
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    "program",
    [
        _program("logging.info('x' * 1_000_000)", before=_LOG, within_s=0.3),
        _program(f"{_WORKER}; {_HANGS}", before=_LOG, within_s=0.3),
        _program(
            _HANGS,
            before="class Blocked(logging.Handler):\n"
            "    def emit(self, record): time.sleep(60)\n"
            "logging.getLogger().addHandler(Blocked())",
            within_s=0.3,
        ),
        _program("hashlib.pbkdf2_hmac('sha512', b'', b'', 2**31 - 1)", within_s=0.3),
        _program("ctypes.PyDLL(None).usleep(60_000_000)", within_s=0.3),
        _program("pass", after="os.write(2, b'x' * 1_000_000)", within_s=0.3),
        _program("pass", after="threading.Thread(target=time.sleep, args=(60,)).start()", within_s=0.3),
    ],
    ids=[
        "main thread writes to the pipe",
        "another thread writes to the pipe",
        "log handler blocks",
        "main thread computes",
        "main thread holds the interpreter's lock",
        "pipe is full after the block",
        "thread runs after the block",
    ],
)
@pytest.mark.slow
def test_nothing_delays_the_forced_end(program: str) -> None:
    reader, writer = os.pipe()
    try:
        arguments = [sys.executable, "-c", program, str(int(signal.SIGTERM))]
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=writer) as process:
            begin_s = time.monotonic()
            try:
                assert process.wait(20) == 1
            finally:
                process.kill()
        assert time.monotonic() - begin_s < 15, "an upper bound for a busy machine"
    finally:
        os.close(reader)
        os.close(writer)
