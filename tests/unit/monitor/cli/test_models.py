"""`outrider models` lists, promotes and imports models; `thresholds` lists thresholds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitor.detectors import GaussianMixture
from storage.control.models import ModelStore
from storage.database.engine import Database
from storage.ledger.ledger import Ledger
from storage.queries.status import load_stream_ids
from tests.unit.monitor.cli.conftest import OutriderRunner
from tests.unit.monitor.cli.payments_stream import MINUTE, NAMES, T0, PaymentsStream


@pytest.fixture(scope="module")
def mixture() -> GaussianMixture:
    """Fitted model of two features with reference energies."""
    x = np.random.default_rng(3).normal(size=(400, 2)).astype(np.float32)
    model = GaussianMixture(n_components=1, random_state=0).fit(x)
    return model.calibrate(x)


@pytest.fixture
def model_file(tmp_path: Path, mixture: GaussianMixture) -> Path:
    path = tmp_path / "model.safetensors"
    mixture.feature_names_ = NAMES
    mixture.save(path)
    return path


def read_models(outrider: OutriderRunner, stream: str = "payments") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(outrider("models", stream, "--format", "json").out)
    return rows


def test_list_is_the_default_subcommand(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    assert outrider("models", "payments") == outrider("models", "list", "payments")
    row = read_models(outrider)[0]
    assert (row["version"], row["kind"], row["state"], row["features"]) == (
        1,
        "gaussian_mixture",
        "active",
        list(NAMES),
    )


def test_unknown_stream_gets_a_suggestion(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    for noun in ("models", "thresholds"):
        result = outrider(noun, "payment")
        assert result.code == 2
        assert "did you mean payments?" in result.err


def test_missing_stream_exits_with_2(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    assert outrider("models").code == 2
    assert outrider("thresholds").code == 2


def test_thresholds_are_listed_with_their_interval(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    rows = json.loads(outrider("thresholds", "payments", "--format", "json").out)
    assert [(row["method"], row["n"], row["percentile"]) for row in rows] == [("reference", 10_000, 99.5)]
    assert rows[0]["lower"] < rows[0]["threshold"] < rows[0]["upper"]


def test_first_import_creates_the_stream_and_replaces_the_warm_up(
    outrider: OutriderRunner, db: Database, model_file: Path
) -> None:
    result = outrider("models", "import", "payments", model_file)
    assert result.code == 0, result.err
    assert "from the first event on" in result.out
    model = ModelStore(db).active(load_stream_ids(db)["payments"])
    assert model is not None
    assert (model.version, model.feature_names) == (1, NAMES)
    assert [each.valid_from_us for each in Ledger(db).read_threshold_schedule(load_stream_ids(db)["payments"])] == [0]


def test_import_into_a_running_stream_is_valid_from_a_free_window(
    outrider: OutriderRunner, payments: PaymentsStream, model_file: Path
) -> None:
    result = outrider("models", "import", "payments", model_file)
    assert result.code == 0, result.err
    states = {row["version"]: row["state"] for row in read_models(outrider)}
    assert states == {1: "retired", 2: "active"}
    sealed = payments.ledger.read_control(payments.stream.id).sealed_until_us
    assert sealed == T0 + 3 * MINUTE
    valid_from = payments.ledger.read_threshold_schedule(payments.stream.id)[-1].valid_from_us
    assert valid_from >= sealed + 610_000_000
    assert valid_from % MINUTE == 0


def test_promote_activates_an_older_model(outrider: OutriderRunner, payments: PaymentsStream, model_file: Path) -> None:
    outrider("models", "import", "payments", model_file)
    outrider("models", "import", "payments", model_file)
    result = outrider("models", "promote", "payments", 2)
    assert result.code == 0, result.err
    assert {row["version"]: row["state"] for row in read_models(outrider)} == {1: "retired", 2: "active", 3: "retired"}
    assert len(payments.ledger.read_threshold_schedule(payments.stream.id)) == 4


def test_promoting_the_active_model_is_rejected(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    result = outrider("models", "promote", "payments", 1)
    assert result.code == 1
    assert "model 1 is already the active model of stream payments" in result.err
    assert len(payments.ledger.read_threshold_schedule(payments.stream.id)) == 1


@pytest.mark.slow
def test_promoting_an_unknown_version_names_the_existing_ones(
    outrider: OutriderRunner, payments: PaymentsStream
) -> None:
    result = outrider("models", "promote", "payments", 9)
    assert result.code == 2
    assert "no model 9; it has 1" in result.err


def test_promoting_a_damaged_model_is_rejected(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    payments.add_model(b"not a model")
    result = outrider("models", "promote", "payments", 1)
    assert result.code == 1
    assert [row["state"] for row in read_models(outrider)] == ["retired", "active"]


def test_model_with_other_features_is_rejected(
    outrider: OutriderRunner, payments: PaymentsStream, tmp_path: Path, mixture: GaussianMixture
) -> None:
    other = tmp_path / "other.safetensors"
    mixture.feature_names_ = ("age", "amount")
    mixture.save(other)
    result = outrider("models", "import", "payments", other)
    assert result.code == 1
    assert "age, amount" in result.err
    assert len(read_models(outrider)) == 1


def test_promoting_a_model_with_other_features_is_rejected(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    payments.add_model(names=("age", "amount"))
    result = outrider("models", "promote", "payments", 1)
    assert result.code == 1
    assert "all models of a stream have the same features" in result.err


@pytest.mark.parametrize("content", [b"", b"garbage" * 100])
def test_damaged_file_is_rejected_and_nothing_is_stored(
    outrider: OutriderRunner, payments: PaymentsStream, tmp_path: Path, content: bytes
) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(content)
    result = outrider("models", "import", "payments", damaged)
    assert result.code == 1
    assert str(damaged) in result.err
    assert len(read_models(outrider)) == 1


def test_missing_file_exits_with_2(outrider: OutriderRunner, payments: PaymentsStream, tmp_path: Path) -> None:
    assert outrider("models", "import", "payments", tmp_path / "absent").code == 2
