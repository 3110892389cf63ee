"""The values that all requests share: settings, database, access and the stop of the server."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from config.settings import ServerSettings, Settings
from monitor.control_plane.kept_look_backs import KeptLookBacks
from monitor.control_plane.preview import VerbPreview
from monitor.models.attribution import Attribution
from monitor.server.failures import FailureLimit
from monitor.server.kept_results import KeptResults, SharedMoments
from monitor.server.live import LiveRevisions
from monitor.server.tokens import TokenList
from monitor.server.trials import Trials
from storage.database.engine import Database

READ_CONNECTIONS = 4
"""Connections for reads; requests beyond them wait in the order of their arrival."""


_MAX_WAITS = 4
_KEPT = 500
_SHARED_S = 1.0
_TRIAL_WAIT_S = 20.0
"""Time that a request of the API waits for a back-test."""


class ServerContext:
    """Shared values of all requests. The databases are opened at the first use and closed by `close`.

    Args:
        settings: All settings.
        server: The settings of the server; by default those of the file.
        clock_s: Seconds since 1970, for the expiry of sessions and for rate limits.
    """

    def __init__(
        self,
        settings: Settings,
        server: ServerSettings | None = None,
        *,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.server = server or settings.server or ServerSettings()
        self.clock_s = clock_s
        self.tokens = TokenList(self.server.tokens)
        self.failures = FailureLimit()
        self.trusted_proxies = self.server.auth_proxy.networks() if self.server.auth_proxy is not None else []
        self.is_https = (self.server.url or "").startswith("https://")
        self.stopping = threading.Event()
        """Set before the server stops, so that live connections end."""
        self.live = LiveRevisions(lambda: self.reads, self.stopping)
        self.shared_pages = SharedMoments[bytes](_KEPT, _SHARED_S)
        """Pages that viewers with the same frame share."""
        self.trials = Trials(settings)
        """The back-tests of stored windows."""
        self.attributions = KeptResults[Attribution](_KEPT)
        self.previews = KeptResults[VerbPreview](_KEPT)
        self.look_backs = KeptLookBacks()
        """The look-backs of the previews of verbs."""
        self.trial_wait_s = _TRIAL_WAIT_S
        self._waits = threading.BoundedSemaphore(_MAX_WAITS)
        self._lock = threading.Lock()
        self._reads: Database | None = None
        self._writes: Database | None = None

    @contextmanager
    def one_of_few_waits(self) -> Iterator[bool]:
        """Yield whether the request may wait for a result: few may, so that threads are left for the others."""
        may_wait = self._waits.acquire(blocking=False)
        try:
            yield may_wait
        finally:
            if may_wait:
                self._waits.release()

    @property
    def reads(self) -> Database:
        """Return the database, opened read-only.

        Raises:
            ConfigError: There is no database yet.
            SchemaMismatch: The database has another schema than this version.
            StorageUnavailable: The database does not answer.
        """
        with self._lock:
            if self._reads is None:
                self._reads = self._open(read_only=True)
            return self._reads

    @property
    def writes(self) -> Database:
        """Return the database, opened for actions; raises as `reads`."""
        with self._lock:
            if self._writes is None:
                self._writes = self._open(read_only=False)
            return self._writes

    def _open(self, *, read_only: bool) -> Database:
        if not read_only:
            # A read-only connection does not create a database that is missing.
            self._open(read_only=True).close()
        database = Database(self.settings.database.url, read_only=read_only, connections=READ_CONNECTIONS)
        try:
            database.check_schema()
        except BaseException:
            database.close()
            raise
        return database

    def close(self) -> None:
        """Close the databases."""
        with self._lock:
            for database in (self._reads, self._writes):
                if database is not None:
                    database.close()
            self._reads = self._writes = None


def _context_of(connection: HTTPConnection) -> ServerContext:
    context: ServerContext = connection.app.state.context
    return context


Context = Annotated[ServerContext, Depends(_context_of)]
"""The shared values, as a parameter of an endpoint."""
