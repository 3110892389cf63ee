"""Shadow models: `outrider fit --shadow`, `models gate`, `promote` and `rollback`."""

import json
from pathlib import Path

import numpy as np
import pytest

from storage.control.shadows import ShadowStore
from storage.database.engine import Database
from storage.queries.status import load_stream_ids
from tests.unit.monitor.cli.conftest import OutriderRunner


@pytest.fixture
def events(tmp_path: Path) -> Path:
    rng = np.random.default_rng(4)
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in rng.normal(size=(3_000, 2)).tolist()))
    return path


def model_states(outrider: OutriderRunner) -> list[tuple[int, str]]:
    return [(row["version"], row["state"]) for row in json.loads(outrider("models", "clicks", "--format", "json").out)]


@pytest.mark.slow
def test_undecided_shadow_is_promoted_only_with_force_and_can_be_rolled_back(
    outrider: OutriderRunner, events: Path
) -> None:
    assert outrider("fit", "clicks", events, "--n-components", "1").code == 0
    fitted = outrider("fit", "clicks", events, "--n-components", "2", "--shadow")
    assert fitted.code == 0, fitted.err
    assert "version 2, is the shadow model: it scores beside the active model and flags nothing" in fitted.out
    assert "outrider models promote clicks 2" in fitted.out
    assert model_states(outrider) == [(1, "active"), (2, "shadow")]

    gate = outrider("models", "gate", "clicks")
    assert gate.code == 0
    assert "model 2 is undecided: it has scored 0 clean windows of the 30" in gate.out
    rejected = outrider("models", "promote", "clicks", "2")
    assert rejected.code == 1
    assert rejected.err.count("\n") == 1
    assert "stays the shadow model: it has scored 0 clean windows" in rejected.err
    assert "--force" in rejected.err
    row = json.loads(outrider("models", "clicks", "--format", "json").out)[1]
    assert row["state"] == "shadow"
    assert "0 clean windows" in row["gate"]

    assert outrider("models", "promote", "clicks", "2", "--force").code == 0
    assert model_states(outrider) == [(1, "retired"), (2, "active")]
    rolled_back = outrider("models", "rollback", "clicks")
    assert "model 1 (gaussian_mixture) is active again" in rolled_back.out
    assert model_states(outrider) == [(1, "active"), (2, "retired")]


@pytest.mark.slow
def test_new_shadow_replaces_the_previous_one(outrider: OutriderRunner, events: Path) -> None:
    for shadow in ((), ("--shadow",), ("--shadow", "--promote-after", "1d")):
        assert outrider("fit", "clicks", events, "--n-components", "1", *shadow).code == 0
    assert model_states(outrider) == [(1, "active"), (2, "candidate"), (3, "shadow")]


@pytest.mark.slow
def test_candidate_that_failed_the_gate_is_promoted_only_with_force(
    outrider: OutriderRunner, events: Path, db: Database
) -> None:
    assert outrider("fit", "clicks", events, "--n-components", "1").code == 0
    assert outrider("fit", "clicks", events, "--n-components", "2", "--shadow").code == 0
    (stream_id,) = load_stream_ids(db).values()
    shadow = ShadowStore(db).current(stream_id)
    assert shadow is not None
    ShadowStore(db).end(stream_id, shadow.model_id, {"holds": False, "reason": "it flags 9% of the clean events"})
    assert model_states(outrider) == [(1, "active"), (2, "candidate")]
    rejected = outrider("models", "promote", "clicks", "2")
    assert rejected.code == 1
    assert "model 2 of stream clicks remains a candidate: it flags 9% of the clean events (--force" in rejected.err
    assert outrider("models", "promote", "clicks", "2", "--force").code == 0
    assert model_states(outrider) == [(1, "retired"), (2, "active")]


def test_rollback_activates_the_previous_model_even_without_events_in_between(
    outrider: OutriderRunner, events: Path
) -> None:
    for _ in range(3):
        assert outrider("fit", "clicks", events, "--n-components", "1").code == 0
    assert "model 2 (gaussian_mixture) is active again" in outrider("models", "rollback", "clicks").out
    assert model_states(outrider) == [(1, "retired"), (2, "active"), (3, "retired")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("models", "rollback", "clicks"), "has no previously active model to roll back to"),
        (("models", "gate", "clicks"), "has no shadow model; `outrider fit clicks --shadow` creates one"),
        (("models", "promote", "clicks", "7"), "has no model 7"),
        (("fit", "clicks", "--promote-after", "1d"), "--promote-after requires --shadow"),
    ],
)
def test_impossible_command_exits_with_2_and_a_reason(
    outrider: OutriderRunner, events: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert outrider("fit", "clicks", events, "--n-components", "1").code == 0
    result = outrider(*arguments)
    assert result.code == 2
    assert message in result.err


@pytest.mark.parametrize("shadow", [(), ("--shadow",)])
def test_fit_with_other_features_is_rejected(
    outrider: OutriderRunner, events: Path, tmp_path: Path, shadow: tuple[str, ...]
) -> None:
    """A daemon that decodes the old features could not score with such a model."""
    assert outrider("fit", "clicks", events, "--n-components", "1").code == 0
    other = tmp_path / "other.jsonl"
    other.write_text(events.read_text().replace('"b"', '"c"'))
    rejected = outrider("fit", "clicks", other, "--n-components", "1", *shadow)
    assert rejected.code == 1
    assert "the events have the features a, c, the active model of stream clicks has a, b" in rejected.err
    assert model_states(outrider) == [(1, "active")]


def test_shadow_requires_an_active_model(outrider: OutriderRunner, events: Path) -> None:
    result = outrider("fit", "clicks", events, "--n-components", "1", "--shadow")
    assert result.code != 0
    assert "has no active model to compare with: omit --shadow" in result.err
