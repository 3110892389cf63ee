"""Derived features: the daemon, `outrider score`, the library and the back-test compute the same."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from monitor.cli.main import outrider
from monitor.detectors import derive, load_detector
from storage.control.models import ModelStore
from storage.ledger.ledger import Ledger
from tests.daemon.settings import STREAM
from tests.integration.test_backtest import (
    DaemonRun,
    backtest_one_cell,
    expected,
    incidents,
    run_daemon_over,
    thresholds,
    windows,
)

_HOSTS = 3
_STEPS = 1_200
_JUMP = _HOSTS * 1_000 + 1


def _records() -> list[bytes]:
    """Build metrics of hosts of different levels, a minute apart; one of them jumps within the range of the others."""
    rng = np.random.default_rng(0)
    times_s = 1_767_225_600 + 60 * np.repeat(np.arange(_STEPS), _HOSTS) + np.tile(np.arange(_HOSTS), _STEPS)
    hosts = np.tile(np.arange(_HOSTS), _STEPS)
    values = 100.0 * hosts + 20 * np.sin(np.repeat(np.arange(_STEPS), _HOSTS) / 200) + rng.normal(size=len(hosts))
    values[_JUMP : _JUMP + 30 : _HOSTS] += 15.0
    others = rng.normal(size=len(hosts))
    return [
        json.dumps({"ts": time_s, "id": i, "host": f"h{host}", "x0": x, "x1": y}).encode()
        for i, (time_s, host, x, y) in enumerate(
            zip(times_s.tolist(), hosts.tolist(), values.tolist(), others.tolist(), strict=True)
        )
    ]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonRun]:
    stream = {
        "event": {
            "features": ["x0", "x1"],
            "time": {"field": "ts", "unit": "s"},
            "id": "id",
            "key": "host",
            "derive": "auto",
        },
        "model": {"n_components": 3, "warm_up": 1_500},
        "window": {"size": "10m", "grace": "1m", "ahead": "20m"},
        "threshold": {"refresh": "1h", "look_back": "6h", "percentile": 99.0},
    }
    with run_daemon_over(tmp_path_factory.mktemp("derived"), _records(), **stream) as result:
        yield result


def test_the_daemon_derives_features_of_regular_events_and_stores_them_with_outliers(ran: DaemonRun) -> None:
    ((summary,),) = ran.rows("SELECT summary FROM models")
    assert json.loads(summary)["derive"] == ["x0", "x1"]
    found = dict(ran.rows("SELECT source_offset, features FROM outliers"))
    jump = json.loads(found[_JUMP])
    assert list(jump) == ["x0", "x1", "x0.change", "x1.change", "x0.roughness", "x1.roughness"]
    assert 10 < jump["x0.change"] < 20
    names = {json.loads(names)[0] for (names,) in ran.rows("SELECT feature_names FROM models")}
    assert names == {"x0"}, "the fields of the stream are the raw ones"


def test_score_and_library_compute_the_energies_of_the_daemon(ran: DaemonRun, tmp_path: Path) -> None:
    stored = dict(ran.rows("SELECT source_offset, energy FROM score_history"))
    arguments = ["-c", str(ran.file.parent / "outrider.yaml"), "score", STREAM, str(ran.file)]
    result = CliRunner().invoke(outrider, [*arguments, "--output", str(tmp_path / "scores.csv")])
    assert result.exit_code == 0, result.output
    with (tmp_path / "scores.csv").open() as file:
        scored = {int(row["row"]): float(row["energy"]) for row in csv.DictReader(file)}
    assert scored == stored
    models = ModelStore(ran.db)
    _, artefact = models.load(models.list(Ledger(ran.db).find_stream(STREAM) or 0)[0].id)
    model = load_detector(artefact)
    frame = pd.read_json(ran.file, lines=True)
    energies = model.energy(derive(frame, key="host", time="ts", like=model))
    assert energies == pytest.approx(np.array([stored[i] for i in range(len(frame))]), rel=1e-4, abs=1e-4)


def test_the_back_test_equals_the_daemon(ran: DaemonRun, tmp_path: Path) -> None:
    for database in (None, f"sqlite:///{tmp_path / 'none.db'}"):
        result = backtest_one_cell(ran, ran.file, database)
        assert (thresholds(result), windows(result), incidents(result)) == expected(ran)
