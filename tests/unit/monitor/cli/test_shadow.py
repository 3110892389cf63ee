"""`outrider fit --shadow`, `models gate`, `promote` and `rollback`: a refit that has to show itself first."""

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


def test_a_model_in_the_shadow_is_promoted_by_force_only_while_there_is_too_little_to_tell_and_rolled_back(
    outrider: OutriderRunner, events: Path
) -> None:
    assert outrider("fit", "clicks", events, "--n-components", "1").code == 0
    fitted = outrider("fit", "clicks", events, "--n-components", "2", "--shadow")
    assert fitted.code == 0, fitted.err
    assert "version 2, scores in the shadow of the active model and flags nothing" in fitted.out
    assert "outrider models promote clicks 2" in fitted.out
    assert model_states(outrider) == [(1, "active"), (2, "shadow")]

    told = outrider("models", "gate", "clicks")
    assert told.code == 0
    assert "model 2 has too little to tell: it has scored 0 clean windows of the 30" in told.out
    refused = outrider("models", "promote", "clicks", "2")
    assert refused.code == 1
    assert refused.err.count("\n") == 1
    assert "stays in the shadow: it has scored 0 clean windows" in refused.err
    assert "--force" in refused.err
    kept = json.loads(outrider("models", "clicks", "--format", "json").out)[1]
    assert kept["state"] == "shadow"
    assert "0 clean windows" in kept["gate"]

    assert outrider("models", "promote", "clicks", "2", "--force").code == 0
    assert model_states(outrider) == [(1, "retired"), (2, "active")]
    back = outrider("models", "rollback", "clicks")
    assert "model 1 (gaussian_mixture) is active again" in back.out
    assert model_states(outrider) == [(1, "active"), (2, "retired")]


def test_one_model_at_a_time_is_in_the_shadow(outrider: OutriderRunner, events: Path) -> None:
    for shadow in ((), ("--shadow",), ("--shadow", "--promote-after", "1d")):
        assert outrider("fit", "clicks", events, "--n-components", "1", *shadow).code == 0
    assert model_states(outrider) == [(1, "active"), (2, "candidate"), (3, "shadow")]


def test_a_candidate_that_did_not_hold_is_promoted_by_force_only(
    outrider: OutriderRunner, events: Path, db: Database
) -> None:
    assert outrider("fit", "clicks", events, "--n-components", "1").code == 0
    assert outrider("fit", "clicks", events, "--n-components", "2", "--shadow").code == 0
    (stream_id,) = load_stream_ids(db).values()
    shadow = ShadowStore(db).current(stream_id)
    assert shadow is not None
    ShadowStore(db).end(stream_id, shadow.model_id, {"holds": False, "reason": "it flags 9% of the clean events"})
    assert model_states(outrider) == [(1, "active"), (2, "candidate")]
    refused = outrider("models", "promote", "clicks", "2")
    assert refused.code == 1
    assert "model 2 of stream clicks stays a candidate: it flags 9% of the clean events (--force" in refused.err
    assert outrider("models", "promote", "clicks", "2", "--force").code == 0
    assert model_states(outrider) == [(1, "retired"), (2, "active")]


def test_rolling_back_goes_to_the_model_before_even_when_no_event_came_between(
    outrider: OutriderRunner, events: Path
) -> None:
    for _ in range(3):
        assert outrider("fit", "clicks", events, "--n-components", "1").code == 0
    assert "model 2 (gaussian_mixture) is active again" in outrider("models", "rollback", "clicks").out
    assert model_states(outrider) == [(1, "retired"), (2, "active"), (3, "retired")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("models", "rollback", "clicks"), "had no other active model before"),
        (("models", "gate", "clicks"), "has no model in the shadow; `outrider fit clicks --shadow` makes one"),
        (("models", "promote", "clicks", "7"), "has no model 7"),
        (("fit", "clicks", "--promote-after", "1d"), "--promote-after goes with --shadow"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    outrider: OutriderRunner, events: Path, arguments: tuple[str, ...], words: str
) -> None:
    assert outrider("fit", "clicks", events, "--n-components", "1").code == 0
    said = outrider(*arguments)
    assert said.code == 2
    assert words in said.err


@pytest.mark.parametrize("shadow", [(), ("--shadow",)])
def test_a_stream_keeps_its_features_when_another_model_is_fitted(
    outrider: OutriderRunner, events: Path, tmp_path: Path, shadow: tuple[str, ...]
) -> None:
    """The events that a daemon has decoded fit no model of others, and it would end at the first of them."""
    assert outrider("fit", "clicks", events, "--n-components", "1").code == 0
    other = tmp_path / "other.jsonl"
    other.write_text(events.read_text().replace('"b"', '"c"'))
    refused = outrider("fit", "clicks", other, "--n-components", "1", *shadow)
    assert refused.code == 1
    assert "the events have the features a, c, the active model of stream clicks has a, b" in refused.err
    assert model_states(outrider) == [(1, "active")]


def test_a_shadow_needs_an_active_model(outrider: OutriderRunner, events: Path) -> None:
    alone = outrider("fit", "clicks", events, "--n-components", "1", "--shadow")
    assert alone.code != 0
    assert "has no active model to score beside: leave --shadow out" in alone.err
