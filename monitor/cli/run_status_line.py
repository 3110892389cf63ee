"""`outrider run` on a terminal: one line below the log that says how each stream gets on."""

import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

from config.errors import OutriderError
from config.settings import Settings
from monitor.cli.output.tables import format_age
from monitor.models.warm_up_progress import format_progress

if TYPE_CHECKING:
    from storage.database.engine import Database
    from storage.queries.status import StreamStatus

_REFRESH_S = 1.0
_RATE_PERIOD_S = 10.0


@contextmanager
def show_status_line(settings: Settings, names: Sequence[str]) -> Iterator[None]:
    """Keep the line while the daemon runs; what is logged scrolls above it. Without a terminal there is none."""
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
            with closing(_StatusReader(settings, names)) as look:
                while not ended.wait(_REFRESH_S):
                    with suppress(OutriderError):  # no database yet, or away: the log says so
                        words = [format_status_line(each, rates.update(each, time.monotonic())) for each in look()]
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
    """Records a second of each stream, of what was committed of late."""

    def __init__(self) -> None:
        self._seen: dict[str, list[tuple[float, int]]] = {}

    def update(self, standing: "StreamStatus", now_s: float) -> float | None:
        """Return the rate, None before two looks tell it."""
        seen = self._seen.setdefault(standing.name, [])
        seen.append((now_s, sum(each.next_offset for each in standing.sources)))
        while now_s - seen[0][0] > _RATE_PERIOD_S:
            seen.pop(0)
        (then_s, before), (_, after) = seen[0], seen[-1]
        return max(0, after - before) / (now_s - then_s) if now_s > then_s else None


def format_status_line(standing: "StreamStatus", rate_s: float | None) -> str:
    """Return what a stream says of itself: how far its warm-up is, or its pace, latest event, limit and incidents."""
    if standing.model is None:
        return f"{standing.name} {_format_warm_up(standing.details.get('warm_up'))}"
    parts = [] if rate_s is None else [f"{rate_s:,.0f} records/s"]
    if standing.last_event_us is not None:
        parts.append(f"last event {format_age((standing.now_us - standing.last_event_us) / 1e6)}")
    if standing.threshold is not None:
        parts.append(f"limit {standing.threshold.threshold:.4g}")
    opened = len(standing.open_incidents)
    parts.append(f"{opened or 'no'} incident{'' if opened == 1 else 's'} open")
    return f"{standing.name}: {', '.join(parts)}"


def _format_warm_up(told: Mapping[str, float] | None) -> str:
    if told is None:
        return "is starting"
    return format_progress(int(told["events"]), int(told["wanted"]), told.get("left_s"))


class _StatusReader:
    """Looks at the database over one connection, once there is a database."""

    def __init__(self, settings: Settings, names: Sequence[str]) -> None:
        self._url = settings.database.url
        self._names = names
        self._db: Database | None = None
        self._checked = False

    def __call__(self) -> "list[StreamStatus]":
        """Return where the streams stand, as far as they are stored."""
        from storage.database.engine import Database
        from storage.queries.status import load_stream_ids, load_stream_status

        if self._db is None:
            self._db = Database(self._url, read_only=True)
        if not self._checked:
            self._db.check_schema()  # an older schema is about to be upgraded
            self._checked = True
        stored = load_stream_ids(self._db)
        return [
            load_stream_status(self._db, stored[name], lease=f"control:{name}")
            for name in self._names
            if name in stored
        ]

    def close(self) -> None:
        """Give the connection back."""
        if self._db is not None:
            self._db.close()
