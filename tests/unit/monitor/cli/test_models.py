"""`outrider models` and `thresholds` list, promote and import."""

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
    """A fitted model with reference energies, two features."""
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


def test_the_bare_noun_lists_the_models(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    assert outrider("models", "payments") == outrider("models", "list", "payments")
    row = read_models(outrider)[0]
    assert (row["version"], row["kind"], row["state"], row["features"]) == (
        1,
        "gaussian_mixture",
        "active",
        list(NAMES),
    )


def test_an_unknown_stream_is_answered_with_the_nearest_name(
    outrider: OutriderRunner, payments: PaymentsStream
) -> None:
    for noun in ("models", "thresholds"):
        ran = outrider(noun, "payment")
        assert ran.code == 2
        assert "did you mean payments?" in ran.err


def test_a_missing_stream_ends_with_2(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    assert outrider("models").code == 2
    assert outrider("thresholds").code == 2


def test_thresholds_are_listed_with_their_interval(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    rows = json.loads(outrider("thresholds", "payments", "--format", "json").out)
    assert [(row["method"], row["n"], row["percentile"]) for row in rows] == [("reference", 10_000, 99.5)]
    assert rows[0]["lower"] < rows[0]["threshold"] < rows[0]["upper"]


def test_the_first_import_makes_the_stream_and_needs_no_warm_up(
    outrider: OutriderRunner, db: Database, model_file: Path
) -> None:
    ran = outrider("models", "import", "payments", model_file)
    assert ran.code == 0, ran.err
    assert "from the first event on" in ran.out
    model = ModelStore(db).active(load_stream_ids(db)["payments"])
    assert model is not None
    assert (model.version, model.feature_names) == (1, NAMES)
    assert [each.valid_from_us for each in Ledger(db).read_threshold_schedule(load_stream_ids(db)["payments"])] == [0]


def test_an_import_into_a_running_stream_holds_from_a_free_window_on(
    outrider: OutriderRunner, payments: PaymentsStream, model_file: Path
) -> None:
    ran = outrider("models", "import", "payments", model_file)
    assert ran.code == 0, ran.err
    states = {row["version"]: row["state"] for row in read_models(outrider)}
    assert states == {1: "retired", 2: "active"}
    sealed = payments.ledger.read_control(payments.stream.id).sealed_until_us
    assert sealed == T0 + 3 * MINUTE
    valid_from = payments.ledger.read_threshold_schedule(payments.stream.id)[-1].valid_from_us
    assert valid_from >= sealed + 610_000_000
    assert valid_from % MINUTE == 0


def test_promote_goes_back_to_an_older_model(
    outrider: OutriderRunner, payments: PaymentsStream, model_file: Path
) -> None:
    outrider("models", "import", "payments", model_file)
    outrider("models", "import", "payments", model_file)
    ran = outrider("models", "promote", "payments", 2)
    assert ran.code == 0, ran.err
    assert {row["version"]: row["state"] for row in read_models(outrider)} == {1: "retired", 2: "active", 3: "retired"}
    assert len(payments.ledger.read_threshold_schedule(payments.stream.id)) == 4


def test_promoting_the_active_model_is_refused(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    ran = outrider("models", "promote", "payments", 1)
    assert ran.code == 1
    assert "model 1 is the active one of stream payments already" in ran.err
    assert len(payments.ledger.read_threshold_schedule(payments.stream.id)) == 1


def test_promoting_an_unknown_version_names_those_that_exist(
    outrider: OutriderRunner, payments: PaymentsStream
) -> None:
    ran = outrider("models", "promote", "payments", 9)
    assert ran.code == 2
    assert "no model 9; it has 1" in ran.err


def test_promoting_a_damaged_model_is_refused(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    payments.add_model(b"not a model")
    ran = outrider("models", "promote", "payments", 1)
    assert ran.code == 1
    assert [row["state"] for row in read_models(outrider)] == ["retired", "active"]


def test_a_model_with_other_features_is_refused(
    outrider: OutriderRunner, payments: PaymentsStream, tmp_path: Path, mixture: GaussianMixture
) -> None:
    other = tmp_path / "other.safetensors"
    mixture.feature_names_ = ("age", "amount")
    mixture.save(other)
    ran = outrider("models", "import", "payments", other)
    assert ran.code == 1
    assert "age, amount" in ran.err
    assert len(read_models(outrider)) == 1


def test_a_stream_keeps_its_features_when_another_model_is_promoted(
    outrider: OutriderRunner, payments: PaymentsStream
) -> None:
    payments.add_model(names=("age", "amount"))
    ran = outrider("models", "promote", "payments", 1)
    assert ran.code == 1
    assert "a stream keeps its features" in ran.err


@pytest.mark.parametrize("content", [b"", b"garbage" * 100])
def test_a_damaged_file_is_refused_and_nothing_is_stored(
    outrider: OutriderRunner, payments: PaymentsStream, tmp_path: Path, content: bytes
) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(content)
    ran = outrider("models", "import", "payments", damaged)
    assert ran.code == 1
    assert str(damaged) in ran.err
    assert len(read_models(outrider)) == 1


def test_a_file_that_is_not_there_ends_with_2(
    outrider: OutriderRunner, payments: PaymentsStream, tmp_path: Path
) -> None:
    assert outrider("models", "import", "payments", tmp_path / "absent").code == 2
