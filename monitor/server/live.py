"""Revisions of the streams for live pages: one thread reads them for all viewers, while there are any."""

import asyncio
import contextlib
import hashlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping

from config.errors import OutriderError
from monitor.health.stream_health import judge_streams
from monitor.server.problems import ApiError
from storage.database.engine import Database
from storage.queries.health import read_health_facts
from storage.queries.streams import read_revisions

log = logging.getLogger(__name__)

HEARTBEAT_S = 15.0
MAX_VIEWERS = 100
_POLL_S = 1.0
_LIFE_S = 3600.0
"""A connection ends after an hour; the browser opens another one, with the session of that time."""

Revisions = Mapping[str, str]


class Viewer:
    """The changes for one viewer. A slow viewer gets the newest revision of each stream, and no queue grows."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._changed: dict[str, str] = {}
        self._wake = asyncio.Event()

    def tell(self, changes: Revisions) -> None:
        """Note changes; called from the thread that reads them."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._add, changes)

    def _add(self, changes: Revisions) -> None:
        self._changed.update(changes)
        self._wake.set()

    async def take(self, timeout_s: float) -> Revisions:
        """Return the changes since the last call; none after the timeout."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout_s)
        self._wake.clear()
        taken, self._changed = self._changed, {}
        return taken


class LiveRevisions:
    """Reads the revisions once a second while there are viewers, and tells the viewers the changes.

    Args:
        open_database: Returns the database for reads.
        stopping: Set when the server stops.
    """

    def __init__(self, open_database: Callable[[], Database], stopping: threading.Event) -> None:
        self._open_database = open_database
        self._stopping = stopping
        self._lock = threading.Lock()
        self._viewers: set[Viewer] = set()
        self._thread: threading.Thread | None = None
        self._seen: Revisions = {}
        self.changes = 0
        """Number of reads that found changes: what was read from the database since then has them."""

    async def follow(self) -> AsyncIterator[str]:
        """Yield the events of one viewer as text: the present revisions, changes, and a heartbeat.

        Raises:
            ApiError: There are too many viewers (503).
        """
        viewer = self._enter(asyncio.get_running_loop())
        return self._events(viewer)

    def _enter(self, loop: asyncio.AbstractEventLoop) -> Viewer:
        with self._lock:
            if len(self._viewers) >= MAX_VIEWERS:
                detail = f"there are {MAX_VIEWERS} live viewers already; the page is refreshed by polling"
                raise ApiError(503, detail, headers={"Retry-After": str(int(HEARTBEAT_S))})
            viewer = Viewer(loop)
            self._viewers.add(viewer)
            if self._thread is None:
                self._thread = threading.Thread(target=self._read, name="server-live", daemon=True)
                self._thread.start()
            return viewer

    async def _events(self, viewer: Viewer) -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + _LIFE_S
        beat_s = loop.time()
        try:
            while not self._stopping.is_set() and loop.time() < ends_s:
                if loop.time() >= beat_s:
                    beat_s = loop.time() + HEARTBEAT_S
                    yield "event: heartbeat\ndata: {}\n\n"
                # A short wait, so that the stop of the server ends the connection.
                for stream, revision in (await viewer.take(_POLL_S)).items():
                    data = json.dumps({"stream": stream, "revision": revision})
                    yield f"event: revision\ndata: {data}\n\n"
        finally:
            with self._lock:
                self._viewers.discard(viewer)

    def _read(self) -> None:
        while not self._stopping.wait(_POLL_S):
            with self._lock:
                viewers = list(self._viewers)
                if not viewers:
                    self._thread = None
                    return
            try:
                revisions = self._read_once()
            except OutriderError as error:
                log.debug("Live revisions: %s.", error, extra={"action": "server"})
                continue
            changes = {name: each for name, each in revisions.items() if self._seen.get(name, each) != each}
            self._seen = revisions
            if changes:
                self.changes += 1
                for viewer in viewers:
                    viewer.tell(changes)

    def _read_once(self) -> Revisions:
        db = self._open_database()
        with db.read() as connection:
            numbers = read_revisions(connection)
        states = judge_streams(read_health_facts(db))
        return {
            name: _digest(each, (states[name].state, states[name].reason) if name in states else None)
            for name, each in numbers.items()
        }


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
