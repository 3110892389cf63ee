"""Network log of KDD Cup 99, in its own order, from a real broker to incidents; shortened to run in a minute.

The log is not part of the project: the tests use a tool beside the repository and are skipped without it.
"""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.daemon.events import produce_records
from tests.daemon.process import DaemonProcess
from tests.daemon.stored import StoredRows, duplicates_and_missing
from tests.servers.kafka import KafkaServer

TOOL = Path(__file__).resolve().parents[3] / "shared" / "tools" / "kdd_events.py"
PARTITIONS = 4

pytestmark = [
    pytest.mark.skipif(not TOOL.exists(), reason=f"the tool that makes KDD events is not at {TOOL}"),
    pytest.mark.timeout(600),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class KddLog:
    """Training events, streamed events, and labels of the streamed events."""

    train: Path
    live: list[bytes]
    attacks: dict[int, bool]
    bursts: dict[int, int]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> KddLog:
    """Half of the training events and the first 16,000 streamed events."""
    folder = tmp_path_factory.mktemp("kdd")
    cut = ["--train", "25000", "--live", "16000", "--out", str(folder)]
    subprocess.run([sys.executable, str(TOOL), *cut], check=True, capture_output=True)
    with (folder / "labels.csv").open() as file:
        labels = {int(row["id"]): row for row in csv.DictReader(file)}
    return KddLog(
        train=folder / "train.jsonl",
        live=(folder / "live.jsonl").read_bytes().splitlines(),
        attacks={event: row["is_attack"] == "1" for event, row in labels.items()},
        bursts={event: int(row["burst"]) for event, row in labels.items()},
    )


@pytest.fixture(scope="module")
def stored(log: KddLog, kafka_server: KafkaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoredRows]:
    """Rows stored by the daemon for the streamed events, with one component fitted on the training events."""
    folder = tmp_path_factory.mktemp("kdd-daemon")
    topic = "kdd"
    kafka_server.create_topic(topic, PARTITIONS)
    produce_records(kafka_server, topic, log.live, PARTITIONS)
    settings: dict[str, Any] = {
        "database": {"url": f"sqlite:///{folder / 'outrider.db'}"},
        "kafka": {"bootstrap_servers": [kafka_server.bootstrap]},
        "streams": {
            "kdd": {
                "source": {"type": "kafka", "topics": [topic]},
                "event": {"time": {"field": "ts"}, "id": "id"},
                "model": {"n_components": 1},
                "window": {"size": "10s", "idle_timeout": "2s"},
            }
        },
    }
    with closing(StoredRows(settings["database"]["url"])) as stored, DaemonProcess(folder, settings) as daemon:
        command = [sys.executable, "-m", "monitor.cli.main", "-c", str(daemon.config), "fit", "kdd", str(log.train)]
        subprocess.run(command, check=True, capture_output=True)
        daemon.start().wait_until(lambda: stored.is_settled(len(log.live)), "all live events")
        assert daemon.terminate() == 0
        yield stored


def test_every_live_event_is_scored_exactly_once(stored: StoredRows, log: KddLog) -> None:
    expected = {i: len(log.live[i::PARTITIONS]) for i in range(PARTITIONS)}
    assert duplicates_and_missing(stored.dump(), expected) == ([], 0)


def test_energies_rank_attacks_as_well_as_a_reference_implementation(stored: StoredRows, log: KddLog) -> None:
    from sklearn.metrics import roc_auc_score
    from sklearn.mixture import GaussianMixture

    rows = stored.rows("SELECT event_id, energy FROM score_history")
    is_attack = [log.attacks[int(event)] for event, _ in rows]
    train = _features(log.train.read_bytes().splitlines())
    reference_model = GaussianMixture(1, random_state=0).fit(train)
    by_id = {
        json.loads(line)["id"]: energy
        for line, energy in zip(log.live, _energies(reference_model, log.live), strict=True)
    }
    reference_auc = roc_auc_score(is_attack, [by_id[int(event)] for event, _ in rows])
    assert roc_auc_score(is_attack, [energy for _, energy in rows]) > reference_auc - 0.005


def _energies(model: Any, lines: list[bytes]) -> np.ndarray[Any, Any]:
    energies: np.ndarray[Any, Any] = -model.score_samples(_features(lines))
    return energies


def _features(lines: list[bytes]) -> np.ndarray[Any, Any]:
    events = (json.loads(line) for line in lines)
    return np.array([[value for name, value in event.items() if name not in {"ts", "id"}] for event in events])


def test_every_visible_burst_has_an_incident(stored: StoredRows, log: KddLog) -> None:
    """A burst is visible if at least 50 of its attacks have energies above the first threshold."""
    first = stored.rows("SELECT threshold FROM thresholds ORDER BY id")[0][0]
    rows = stored.rows("SELECT event_id, energy, event_time_us FROM score_history")
    times_above: dict[int, list[int]] = {}
    for event, energy, time_us in rows:
        if log.bursts[int(event)] and energy > first:
            times_above.setdefault(log.bursts[int(event)], []).append(time_us)
    visible = {burst: times for burst, times in times_above.items() if len(times) >= 50}
    spikes = stored.rows("SELECT window_start_us, coalesce(resolved_at_us, :ever) FROM incident_history",
                          ever=2**62)  # fmt: skip
    assert visible
    assert all(any(start <= max(times) and min(times) <= end for start, end in spikes) for times in visible.values()), (
        visible.keys()
    )
