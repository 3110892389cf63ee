"""A database of each kind that a daemon has written, and clients of the server."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from config.settings import Settings
from tests.servers.postgres import PostgresServer
from tests.unit.monitor.server.apps import TOKENS, build_settings, open_client

_SOURCE = {
    "type": "synthetic",
    "seed": 3,
    "rate": 10,
    "events": 54_000,
    "speed": 0,
    "start": "2026-01-01T00:00:00Z",
    "features": 3,
    "first_burst": "1h",
    "burst_every": "10h",
    "burst_length": "5m",
    "burst_share": 0.3,
}
_STREAM = {
    "source": _SOURCE,
    "event": {"time": {"field": "ts"}, "id": "id"},
    "model": {"n_components": 1, "warm_up": 5_000},
    "window": {"size": "1m"},
    "threshold": {"refresh": "10m", "look_back": "6h"},
    "alerts": {"drift": {"horizons": ["10m"]}},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Settings with the writer and with the reader of one database."""

    settings: Settings
    reader: Settings
    _opened: list[TestClient] = field(default_factory=list)

    def client(self, *, as_reader: bool = False, **server: Any) -> TestClient:
        settings = self.reader if as_reader else self.settings
        changed = build_settings(settings.database.url, server).server
        client = open_client(settings.model_copy(update={"server": changed}))
        self._opened.append(client)
        return client

    def client_with_tokens(self) -> TestClient:
        return self.client(tokens=TOKENS)

    def close(self) -> None:
        """Close the databases of all clients."""
        for client in self._opened:
            client.app.state.context.close()  # type: ignore[attr-defined]
        self._opened.clear()


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('served') / 'o.db'}"
        yield _run_daemon(url)
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.create_database()
    found = _run_daemon(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE api_reader LOGIN")
        connection.execute("GRANT USAGE ON SCHEMA public TO api_reader")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO api_reader")
    reader = build_settings(url.replace("//postgres@", "//api_reader@"))
    yield replace(found, reader=found.settings.model_copy(update={"database": reader.database}))
    server.drop_database(url)
    server.execute("DROP ROLE api_reader")


@pytest.fixture(autouse=True)
def closed_clients(request: pytest.FixtureRequest) -> Iterator[None]:
    """Close the databases of the clients after each test of a served database."""
    yield
    if "served" in request.fixturenames:
        request.getfixturevalue("served").close()


def _run_daemon(url: str) -> Served:
    # A conftest is imported before the filter for a warning of the Kafka client is set.
    from monitor.daemon.daemon import Daemon

    settings = Settings.model_validate({"database": {"url": url}, "streams": {"payments": _STREAM}})
    Daemon(settings).run()
    return Served(settings=settings, reader=settings)
