"""Status line of `outrider run` on a terminal: one line below the log with the state of each stream."""

import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from config.errors import OutriderError
from config.settings import Settings
from config.time_format import format_age
from monitor.cli.output.tables import escape_unprintable
from monitor.models.warm_up_progress import format_progress
from storage.control.warm_up import WarmUpProgress

if TYPE_CHECKING:
    from storage.database.engine import Database
    from storage.queries.status import StreamStatus

_REFRESH_S = 1.0
_RATE_PERIOD_S = 10.0


@contextmanager
def show_status_line(settings: Settings, names: Sequence[str]) -> Iterator[None]:
    """Show the line while the daemon runs; the log scrolls above it. Without a terminal, do nothing."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    ended = threading.Event()
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True, redirect_stdout=False) as live:

        def show() -> None:
            rates = RateTracker()
            with closing(_StatusReader(settings, names)) as read_statuses:
                while not ended.wait(_REFRESH_S):
                    with suppress(OutriderError):  # no database yet, or not available: logged by the daemon
                        words = [
                            format_status_line(each, rates.update(each, time.monotonic())) for each in read_statuses()
                        ]
                        text = Text("   ".join(words), style="dim", no_wrap=True, overflow="ellipsis")
                        live.update(text, refresh=True)

        thread = threading.Thread(target=show, name="status-line", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class RateTracker:
    """Committed records per second of each stream over the last seconds."""

    def __init__(self) -> None:
        self._seen: dict[str, list[tuple[float, int]]] = {}

    def update(self, status: "StreamStatus", now_s: float) -> float | None:
        """Add an observation at `now_s` and return the rate, None at the first observation."""
        observations = self._seen.setdefault(status.name, [])
        observations.append((now_s, sum(each.next_offset for each in status.sources)))
        while now_s - observations[0][0] > _RATE_PERIOD_S:
            observations.pop(0)
        (then_s, before), (_, after) = observations[0], observations[-1]
        return max(0, after - before) / (now_s - then_s) if now_s > then_s else None


def format_status_line(status: "StreamStatus", rate_s: float | None) -> str:
    """Return a stream's warm-up progress, or its rate, latest event, threshold and open incidents."""
    if status.model is None:
        return f"{status.name} {_format_warm_up(status.details)}"
    parts = [] if rate_s is None else [f"{rate_s:,.0f} records/s"]
    if status.last_event_us is not None:
        parts.append(f"last event {format_age((status.now_us - status.last_event_us) / 1e6)}")
    if status.threshold is not None:
        parts.append(f"threshold {status.threshold.threshold:.4g}")
    opened = len(status.open_incidents)
    parts.append(f"{opened or 'no'} incident{'' if opened == 1 else 's'} open")
    return f"{status.name}: {', '.join(parts)}"


def _format_warm_up(details: Mapping[str, Any]) -> str:
    if "warm_up" not in details:
        return "is starting"
    return escape_unprintable(format_progress(WarmUpProgress.from_details(details)))


class _StatusReader:
    """Reader of stream statuses over one connection, opened once the database exists."""

    def __init__(self, settings: Settings, names: Sequence[str]) -> None:
        self._url = settings.database.url
        self._names = names
        self._db: Database | None = None
        self._checked = False

    def __call__(self) -> "list[StreamStatus]":
        """Return the statuses of the stored streams."""
        from storage.database.engine import Database
        from storage.queries.status import load_stream_ids, load_stream_status

        if self._db is None:
            self._db = Database(self._url, read_only=True)
        if not self._checked:
            self._db.check_schema()  # the daemon upgrades an older schema
            self._checked = True
        stored = load_stream_ids(self._db)
        return [
            load_stream_status(self._db, stored[name], lease=f"control:{name}")
            for name in self._names
            if name in stored
        ]

    def close(self) -> None:
        """Close the connection."""
        if self._db is not None:
            self._db.close()
