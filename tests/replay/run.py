"""Run the daemon over the replay file, in a separate process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.replay.dump import dump_views
from tests.replay.events import write_events
from tests.servers.postgres import PostgresServer

_REPOSITORY = Path(__file__).parents[2]
_WITHIN_S = 300.0


def replay(folder: Path, name: str, url: str) -> list[str]:
    """Replay the file into the empty database at `url`; return the dump of its views."""
    events = folder / "events.jsonl"
    if not events.exists():
        write_events(events)
    config = folder / f"{name}.yaml"
    config.write_text(json.dumps(_settings(url, events)))  # JSON is YAML
    subprocess.run(
        [sys.executable, "-m", "monitor.cli.main", "-c", str(config), "run"],
        check=True,
        timeout=_WITHIN_S,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        # A relative path: the hash of the configuration and the topic are the same in every folder.
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_REPOSITORY)},
    )
    return [line.replace(str(events), events.name) for line in dump_views(url)]


def replay_on_both(folder: Path) -> dict[str, list[str]]:
    """Replay into a SQLite file and into a temporary PostgreSQL server."""
    file = folder / "replay.db"
    file.unlink(missing_ok=True)
    dumps = {"sqlite": replay(folder, "sqlite", f"sqlite:///{file}")}
    server = PostgresServer()
    try:
        server.start()
        dumps["postgresql"] = replay(folder, "postgresql", server.create_database())
    finally:
        server.close()
    return dumps


def _settings(url: str, events: Path) -> dict[str, Any]:
    return {
        "database": {"url": url},
        "device": "cpu",
        "streams": {
            "payments": {
                "source": {"type": "file", "path": events.name},
                "event": {
                    "time": {"field": "ts"},
                    "id": "id",
                    "key": "user",
                    "features": ["x0", "x1", "x2"],
                },
                "model": {"n_components": 1, "warm_up": 2_000},
                "window": {"size": "30m", "grace": "15m", "ahead": "2h", "idle_timeout": "2s"},
                "threshold": {"refresh": "3h", "look_back": "3d", "percentile": 99},
                "alerts": {"drift": {"horizons": ["1h", "6h"]}},
            }
        },
    }
