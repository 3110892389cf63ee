"""Back-tests of stored windows for the page: in a child process, one at a time, kept until the stream has changed.

A back-test takes a second of a processor for each cell and day. In a process of its own with a low priority it does not
slow down the daemon or the page, and a page that asks for it is answered at once with its progress.
"""

import multiprocessing
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from config.errors import OutriderError
from config.settings import Settings
from monitor.backtest import Outcome, backtest
from monitor.backtest.memory_store import MemoryStore
from monitor.control_plane.control_plane import BUDGETED_KINDS

_KEPT = 32
_LIMIT_S = 300.0
_POLL_S = 0.5
_NICENESS = 10
_PROGRESS_S = 0.3
_MAX_WAITING = 8
"""Back-tests that run or wait for their turn; further ones are refused, so that readers cannot pile them up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRequest:
    """A grid of a back-test.

    Attributes:
        stream: Name of the stream.
        since: A time, or a duration back from the latest event; None: all stored windows.
        percentiles: The percentiles.
        false_alarms: The budgets, such as 1/week.
        basis: The last tick and the revision of the stream: another basis is another trial.
    """

    stream: str
    since: str | None
    percentiles: tuple[float, ...]
    false_alarms: tuple[str, ...]
    basis: tuple[int | None, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialIncident:
    """An incident of a cell: its kind and the windows from the first to the last one that fired."""

    kind: str
    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCell:
    """The outcome of a cell and its incidents under the false-alarm budget."""

    outcome: Outcome
    incidents: Sequence[TrialIncident]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The state of a back-test.

    Attributes:
        done: Number of windows that were replayed.
        total: Their total number; 0 before the first one.
        error: The reason for which there is no result.
        cells: The outcomes; empty before the end. Percentiles vary slowest.
        begin_us: Start of the first window.
        end_us: End of the last one.
        is_refused: Whether it was not started, because others wait.
    """

    done: int = 0
    total: int = 0
    error: str | None = None
    cells: Sequence[TrialCell] = ()
    begin_us: int = 0
    end_us: int = 0
    is_refused: bool = False

    @property
    def is_running(self) -> bool:
        """Return whether the result is still to come."""
        return self.error is None and not self.cells


class Trials:
    """Runs back-tests in child processes, one at a time, and keeps the newest results.

    Args:
        settings: The settings of the streams.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._turn = threading.Lock()
        self._trials: OrderedDict[TrialRequest, Trial] = OrderedDict()

    def ask(self, request: TrialRequest) -> Trial:
        """Return the state of a back-test; start it if nobody has asked for it before."""
        with self._lock:
            found = self._trials.get(request)
            if found is not None:
                self._trials.move_to_end(request)
                return found
            if sum(each.is_running for each in self._trials.values()) >= _MAX_WAITING:
                return Trial(error="other back-tests wait for their turn; try again in a minute", is_refused=True)
            self._trials[request] = found = Trial()
            while len(self._trials) > _KEPT:
                self._trials.popitem(last=False)
        threading.Thread(target=self._run, args=(request,), name="trial", daemon=True).start()
        return found

    def wait(self, request: TrialRequest, timeout_s: float) -> Trial:
        """Return the state of a back-test when it has ended or the time is over; start it as `ask` does."""
        trial = self.ask(request)
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while trial.is_running:
                remaining_s = deadline_s - time.monotonic()
                if remaining_s <= 0 or not self._changed.wait(remaining_s):
                    break
                trial = self._trials.get(request, trial)
        return trial

    def _run(self, request: TrialRequest) -> None:
        with self._turn:
            for trial in _run_child(self._settings, request):
                with self._changed:
                    self._trials[request] = trial
                    self._changed.notify_all()


def _run_child(settings: Settings, request: TrialRequest) -> Iterator[Trial]:
    """Yield the states of a back-test in a child process."""
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    child = spawn.Process(target=replay, args=(settings, request, sender), name="trial", daemon=True)
    child.start()
    sender.close()
    deadline_s = time.monotonic() + _LIMIT_S
    try:
        trial = Trial()
        while trial.is_running:
            if time.monotonic() > deadline_s:
                trial = Trial(error=f"it took longer than {_LIMIT_S:.0f} s; choose a shorter range")
            elif receiver.poll(_POLL_S):
                trial = receiver.recv()
            else:
                continue
            yield trial
    except EOFError:
        yield Trial(error="its process ended without a result; the log of the server may have the reason")
    finally:
        receiver.close()
        child.kill()
        child.join()


def replay(settings: Settings, request: TrialRequest, sender: Connection) -> None:
    """Replay the stored windows and send the states; the main function of the child process."""
    os.nice(_NICENESS)
    told_s = 0.0

    def report(done: int, total: int) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= _PROGRESS_S:
            # A server that has ended does not read: the error ends the process.
            sender.send(Trial(done=done, total=total))
            told_s = time.monotonic()

    try:
        found = backtest(
            settings,
            request.stream,
            since=request.since,
            percentiles=request.percentiles,
            false_alarms=request.false_alarms,
            progress=report,
        )
    except OutriderError as error:
        sender.send(Trial(error=str(error)))
        return
    cells = [
        TrialCell(outcome=outcome, incidents=_list_incidents(memory))
        for outcome, memory in zip(found.cells, found.memories, strict=True)
    ]
    sender.send(Trial(cells=cells, begin_us=found.begin_us, end_us=found.end_us))


def _list_incidents(memory: MemoryStore) -> list[TrialIncident]:
    return [
        TrialIncident(kind=each.row.kind, start_us=each.fired_windows[0][0], end_us=each.fired_windows[-1][1])
        for each in memory.incidents
        if each.row.kind in BUDGETED_KINDS and each.fired_windows
    ]
