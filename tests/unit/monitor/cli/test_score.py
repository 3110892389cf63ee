"""`outrider score` writes the energies of a file under the active model."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from monitor.detectors import GaussianMixture
from storage.database.engine import Database
from tests.unit.monitor.cli.conftest import OutriderRunner
from tests.unit.monitor.cli.payments_stream import NAMES

EVENTS = (np.random.default_rng(3).normal(size=(400, 2)) * [1.0, 1000.0]).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path, outrider: OutriderRunner, db: Database) -> GaussianMixture:
    """Active model of the stream `payments`."""
    mixture = GaussianMixture(n_components=1, random_state=0).fit(EVENTS).calibrate(EVENTS)
    mixture.feature_names_ = NAMES
    mixture.save(tmp_path / "model.safetensors")
    result = outrider("models", "import", "payments", tmp_path / "model.safetensors")
    assert result.code == 0, result.err
    return mixture


def write_csv(path: Path, order: list[int]) -> Path:
    """Write the events with a time as CSV, with the feature columns in the given order."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ts", *(NAMES[j] for j in order), "note"])
        rows.writerows([1_767_225_600 + i, *(repr(float(row[j])) for j in order), "x"] for i, row in enumerate(EVENTS))
    return path


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_columns_of_a_table_are_matched_by_name(
    tmp_path: Path, outrider: OutriderRunner, model: GaussianMixture, order: list[int]
) -> None:
    result = outrider("score", "payments", write_csv(tmp_path / "events.csv", order))
    assert result.code == 0, result.err
    energies = [float(row["energy"]) for row in csv.DictReader(io.StringIO(result.out))]
    assert np.allclose(energies, model.energy(EVENTS), rtol=1e-6)


@pytest.mark.usefixtures("model")
def test_rejected_records_are_named_with_their_reasons(tmp_path: Path, outrider: OutriderRunner) -> None:
    events = write_csv(tmp_path / "events.csv", [0, 1])
    with events.open("a") as file:
        file.write("1767225600,many,1.0,x\n" * 3)
    result = outrider("score", "payments", events)
    assert result.code == 0, result.err
    assert f"3 records of {events} are not events and have no row: not_a_number 3 ({NAMES[0]}: " in result.err
