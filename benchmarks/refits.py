"""The commits of a loaded daemon while a child process fits its model again, against those between the fits.

A daemon scores generated events at a constant rate, and fits its model again every 20 seconds. The position of the
source is read every 10 ms; a gap is the time between two commits. The columns: the number of gaps, their median, 99th
percentile and maximum, and events per second, while a fit runs and while none runs; the largest resident memory of the
daemon and of a fit. A daemon that reads old events faster than they were made can reach the end of a fit's hour of
event time before the fit ends, and then waits for it: this is not measured here.

    python -m benchmarks.refits [--seconds 120] [--features 8] [--rate 10000] [--database sqlite]
"""

import argparse
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.statistical.table import show
from tests.daemon.process import DaemonProcess
from tests.daemon.stored import StoredRows
from tests.servers.postgres import PostgresServer

POLL_S = 0.01
COLUMNS = ("a fit runs", "gaps", "median ms", "p99 ms", "max ms", "events per s")


@dataclass
class Gaps:
    """The times between two commits, and the events and seconds in all."""

    gaps_s: list[float] = field(default_factory=list)
    events: int = 0

    def row(self, name: str) -> tuple[str, ...]:
        """Return the row of the table."""
        if not self.gaps_s:
            return (name, "0", "", "", "", "")
        median, p99, largest = np.quantile(self.gaps_s, [0.5, 0.99, 1]) * 1000
        rate = self.events / sum(self.gaps_s)
        return name, str(len(self.gaps_s)), f"{median:.0f}", f"{p99:.0f}", f"{largest:.0f}", f"{rate:,.0f}"


def make_settings(url: str, features: int, rate: float) -> dict[str, Any]:
    """Return the settings of a daemon with refits; the events have no bursts, so that no incident delays a refit."""
    return {
        "database": {"url": url},
        "device": "cpu",
        "streams": {
            "load": {
                "source": {"type": "synthetic", "rate": rate, "features": features, "burst_share": 0},
                "model": {"warm_up": 10_000, "refit": {"every": "20s", "over": "5m"}},
                "window": {"size": "1s", "grace": "1s"},
                "alerts": {"silence_after": "never"},
            }
        },
    }


def find_fits(daemon: psutil.Process) -> list[psutil.Process]:
    """Return the child processes of the daemon that fit."""
    return [child for child in daemon.children() if child.status() != psutil.STATUS_ZOMBIE]


def measure(daemon: DaemonProcess, stored: StoredRows, seconds: float) -> tuple[dict[bool, Gaps], dict[str, int]]:
    """Watch the daemon for some seconds after its first window.

    Returns:
        The gaps while a fit runs and while none runs, and the largest resident memory in bytes.
    """
    daemon.wait_until(lambda: stored.number("SELECT count(*) FROM windows") > 0, "the first window is judged")
    process, memory = psutil.Process(daemon.pid), {"daemon": 0, "fit": 0}
    found = {True: Gaps(), False: Gaps()}
    end_s, last_s, last = time.monotonic() + seconds, time.monotonic(), stored.progress()
    had_fit = False
    while time.monotonic() < end_s:
        time.sleep(POLL_S)
        fits = find_fits(process)
        had_fit = had_fit or bool(fits)
        position = stored.progress()
        if position > last:
            now_s = time.monotonic()
            found[had_fit].gaps_s.append(now_s - last_s)
            found[had_fit].events += position - last
            last, last_s, had_fit = position, now_s, bool(fits)
            memory["daemon"] = max(memory["daemon"], process.memory_info().rss)
            memory["fit"] = max([memory["fit"], *(fit.memory_info().rss for fit in fits if fit.is_running())])
    return found, memory


def main() -> None:
    """Run the daemon and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--features", type=int, default=8)
    parser.add_argument("--rate", type=float, default=10_000, help="events per second")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = f"sqlite:///{folder}/outrider.db"
        if options.database == "postgresql":
            url = stack.enter_context(PostgresServer(durable=True)).create_database()
        daemon = DaemonProcess(folder, make_settings(url, options.features, options.rate), "refits")
        stored = stack.enter_context(closing(StoredRows(url)))
        stack.enter_context(daemon.start())
        found, memory = measure(daemon, stored, options.seconds)
        states = stored.rows("SELECT state, count(*) FROM refits GROUP BY state ORDER BY state")
    show("Time between commits", COLUMNS, [found[True].row("yes"), found[False].row("no")])
    print("refits by state: " + ", ".join(f"{n} {state}" for state, n in states))
    print(f"largest resident memory: daemon {memory['daemon'] >> 20} MB, fit {memory['fit'] >> 20} MB")


if __name__ == "__main__":
    main()
