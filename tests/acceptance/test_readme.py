"""Acceptance: what the README says is run: its configuration, its commands on a real broker, its SQL, its Python."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest

from config.loading import load
from monitor.daemon import Daemon
from storage.engine import Database
from tests.servers.kafka import KafkaServer
from tests.servers.records import produce

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
FILE_STREAM = """
database: {{url: "{url}"}}
streams:
  payments:
    source: {{type: file, path: {path}}}
    event: {{time: {{field: ts}}, id: id}}
    model: {{n_components: 1, warm_up: 1000}}
    window: {{size: 10s}}
"""


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of a language."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    assert found, f"the README has no block of {language}"
    return found


def events(n: int, *, burst_at: int) -> Iterator[bytes]:
    """JSON events of three features, ten a second, with a burst of strange ones and one that is no number."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n, 3))
    rows[burst_at : burst_at + 60] += 12
    for i, row in enumerate(rows):
        ts = f"2026-01-01T{i // 36_000:02d}:{i // 600 % 60:02d}:{i // 10 % 60:02d}.{i % 10}00000Z"
        values = {"amount": row[0], "age": row[1], "count": row[2] if i != 50 else "many"}
        yield json.dumps({"ts": ts, "id": f"p{i}", **values}).encode()


def filled(folder: Path, url: str) -> None:
    """Run the daemon over a file of events into the database."""
    path = folder / "events.jsonl"
    path.write_bytes(b"\n".join(events(3_000, burst_at=2_000)))
    settings = folder / "outrider.yaml"
    settings.write_text(FILE_STREAM.format(url=url, path=path))
    Daemon(load(settings, {})).run()


def test_the_configuration_of_the_tour_loads_and_names_a_kafka_stream(tmp_path: Path) -> None:
    for block in blocks("yaml"):
        path = tmp_path / "outrider.yaml"
        path.write_text(block)
        assert load(path, {}).streams["payments"].source.type == "kafka"


def test_every_query_runs_and_finds_something(tmp_path: Path, database_url: str) -> None:
    filled(tmp_path, database_url)
    for query in blocks("sql"):
        if database_url.startswith("sqlite"):
            with sqlite3.connect(database_url.removeprefix("sqlite:///")) as connection:
                rows = connection.execute(query).fetchall()
            connection.close()
        else:
            with psycopg.connect(database_url.replace("postgresql+psycopg", "postgresql")) as connection:
                rows = connection.execute(query).fetchall()
        assert rows, f"nothing found by:\n{query}"


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    filled(tmp_path, "sqlite:///outrider.db")
    for block in blocks("python"):
        scope: dict[str, object] = {}
        exec(block, scope)
        assert len(scope["frame"]) == 30  # type: ignore[arg-type]


def test_the_tables_of_commands_and_views_name_what_exists(tmp_path: Path) -> None:
    from monitor.cli.main import outrider

    with Database(f"sqlite:///{tmp_path / 'empty.db'}") as db:
        db.upgrade()
    with sqlite3.connect(tmp_path / "empty.db") as connection:
        views = {name for (name,) in connection.execute("select name from sqlite_master where type = 'view'")}
    connection.close()
    assert set(re.findall(r"^\| `([a-z_]+_history)` \|", README, flags=re.MULTILINE)) == views
    commands = set(
        re.findall(r"^\| `([a-z]+)[ `]", README.partition("## Commands")[2].partition("## SQL")[0], re.MULTILINE)
    )
    for command in commands:
        assert outrider.get_command(None, command) is not None, command  # type: ignore[arg-type]


def test_the_tour_on_a_real_broker(tmp_path: Path, kafka_server: KafkaServer, kafka_topic: Callable[..., str]) -> None:
    """The commands of the README, in its order, in an empty folder: the incident opens and the queries answer."""
    topic = kafka_topic(1)
    produce(kafka_server, topic, events(3_000, burst_at=2_000))
    text = blocks("yaml")[0].replace("localhost:9092", kafka_server.bootstrap).replace("[payments]", f"[{topic}]")
    (tmp_path / "outrider.yaml").write_text(text)
    (tmp_path / "train.jsonl").write_bytes(b"\n".join(events(1_500, burst_at=1_500)))
    setup, ask = blocks("console")
    for line in commands_of(setup):
        if line == "outrider run":
            daemon = start(tmp_path)
        else:
            assert outrider_says(tmp_path, line)
    try:
        wait_until(lambda: scored(tmp_path) == 2_999, daemon)
        wait_until(lambda: "spike" in outrider_says(tmp_path, "outrider incidents"), daemon)
        for line in commands_of(ask):
            assert outrider_says(tmp_path, line), line
        assert "outliers among" in outrider_says(tmp_path, "outrider incidents show 1")
    finally:
        daemon.send_signal(signal.SIGTERM)
        _, log = daemon.communicate(timeout=60)
    assert daemon.returncode == 0, log


def commands_of(block: str) -> list[str]:
    """Return the commands that a person would type."""
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


def start(folder: Path) -> subprocess.Popen[str]:
    """Start the daemon as a person does."""
    command = [sys.executable, "-m", "monitor.cli.main", "run"]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment())


def outrider_says(folder: Path, line: str) -> str:
    """Run a command of the README and return what it prints; it must succeed."""
    arguments = line.split()
    assert arguments[0] == "outrider"
    command = [sys.executable, "-m", "monitor.cli.main", *arguments[1:]]
    done = subprocess.run(
        command, check=False, cwd=folder, capture_output=True, text=True, timeout=120, env=environment()
    )
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout


def environment() -> dict[str, str]:
    """Return the environment of a child that finds the packages wherever these tests found them."""
    import monitor

    home = str(Path(monitor.__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": home, "OMP_NUM_THREADS": "1"}


def scored(folder: Path) -> int:
    """Return how many events are in the history."""
    with sqlite3.connect(folder / "outrider.db") as connection:
        try:
            count = connection.execute("select count(*) from score_history").fetchone()[0]
        except sqlite3.OperationalError:
            count = 0
    connection.close()
    return int(count)


def wait_until(condition: Callable[[], bool], daemon: subprocess.Popen[str], within_s: float = 120) -> None:
    """Wait for a condition while the daemon lives."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert daemon.poll() is None, daemon.communicate()[1]
        assert time.monotonic() < deadline, "the daemon did not get there"
        time.sleep(0.2)
