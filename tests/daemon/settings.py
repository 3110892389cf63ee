"""Configurations that make a daemon judge and alert within seconds instead of days."""

from typing import Any

STREAM = "payments"
SESSION_MS = 3_000


def kafka_settings(
    database_url: str, bootstrap: str, topic: str, *, client: dict[str, Any] | None = None, **stream: Any
) -> dict[str, Any]:
    """Return the settings of one stream of a topic, with short windows, a short look-back and one component.

    Args:
        database_url: URL of the database.
        bootstrap: Address of the broker.
        topic: The topic; the consumer group has the same name.
        client: Additional options of the Kafka client.
        stream: Sections of the stream that replace the default ones.
    """
    source = {"type": "kafka", "topics": [topic], "group_id": topic}
    return {
        "database": {"url": database_url},
        "device": "cpu",
        "kafka": {
            "bootstrap_servers": [bootstrap],
            "client": {
                "session_timeout_ms": SESSION_MS,
                "heartbeat_interval_ms": 300,
                "max_poll_records": 200,
                **(client or {}),
            },
        },
        "streams": {STREAM: {"source": source, **_STREAM, **stream}},
    }


def file_settings(database_url: str, path: str, **stream: Any) -> dict[str, Any]:
    """Return the same settings for a stream from a file."""
    source = {"type": "file", "path": path}
    return {
        "database": {"url": database_url},
        "device": "cpu",
        "streams": {STREAM: {"source": source, **_STREAM, **stream}},
    }


_STREAM: dict[str, Any] = {
    "event": {"time": {"field": "ts"}, "id": "id", "features": ["x0", "x1", "x2"]},
    "model": {"n_components": 1, "warm_up": 1_000},
    "window": {"size": "10s", "grace": "10s", "ahead": "1m", "idle_timeout": "2s"},
    "threshold": {"refresh": "1m", "look_back": "20m", "percentile": 99},
    # The bursts of the tests follow each other within minutes; each is an incident of its own.
    "alerts": {"reopen_within": "0s"},
}
