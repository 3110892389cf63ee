"""Applications of the server for tests, without a network."""

from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from config.settings import Settings
from monitor.server.app import create_app
from monitor.server.context import ServerContext
from tests.upgraded import give_newest_schema

HOST = "127.0.0.1:8080"
OPS, VIEWER = "ops-token-0123456789abcdef", "viewer-token-0123456789abcdef"
TOKENS = [
    {"name": "ops", "token": OPS, "scopes": ["read", "act", "promote"]},
    {"name": "viewer", "token": VIEWER, "scopes": ["read"]},
]


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


def build_settings(url: str, server: dict[str, Any] | None = None) -> Settings:
    return Settings.model_validate(
        {
            "database": {"url": url},
            "server": server or {},
            "streams": {"payments": {"source": {"type": "synthetic"}}},
        }
    )


def empty_database(folder: Path) -> str:
    url = f"sqlite:///{folder / 'o.db'}"
    give_newest_schema(url)
    return url


def open_client(settings: Settings, clock: Clock | None = None, *, host: str = HOST, **options: Any) -> TestClient:
    """Return a client of an application that listens on port 8080; the context is closed with the application."""
    context = ServerContext(settings, clock_s=clock or Clock())
    return TestClient(
        create_app(context), base_url=f"http://{host}", follow_redirects=False, client=("127.0.0.1", 5000), **options
    )


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
