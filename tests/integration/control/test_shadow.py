"""Shadow models: scoring beside the active model, the gate, and the promotion without a gap."""

from datetime import timedelta
from functools import partial

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture as ScikitMixture

from config.errors import StorageUnavailable
from config.settings import Settings
from monitor.backtest import backtest
from monitor.detectors import GaussianMixture
from monitor.models.fitting import FittedModel, prepare_imported_model
from monitor.models.promotion import Promoter
from monitor.models.scoring import load_model
from monitor.thresholds.choose import estimate_reference_threshold
from monitor.thresholds.tick import build_first_threshold
from storage.control.models import ModelStore
from storage.control.shadows import NewShadow, ShadowStore
from storage.control.thresholds import ThresholdStore
from storage.database.engine import Database
from storage.ledger.ledger import Ledger
from tests.integration.control.simulation import SimulatedWriter, SimulationSettings, make_control_plane, make_records
from tests.integration.control.worker_bench import (
    MINUTE,
    NAMES,
    PERCENTILE,
    RULE,
    SECOND,
    T0,
    fetch_rows,
    fit_small_model,
    open_stream,
)
from tests.rules import make_rules

HOURS = 4
PER_MINUTE = 100
APART = 50.0


def scene(seed: int = 5) -> SimulationSettings:
    source = make_records(seed, n=HOURS * 60 * PER_MINUTE, span_s=HOURS * 3600)
    rules = make_rules(size_us=MINUTE, grace_us=10 * SECOND, ahead_us=10 * MINUTE, max_future_us=None)
    return SimulationSettings(
        rules=rules, refresh=timedelta(minutes=5), look_back=timedelta(hours=2), sources=[source], per_week=1.0
    )


def shifted_model(centre: float = 0.0, nats: float = APART) -> FittedModel:
    """Return a mixture with a weight of e^-nats on its component at `centre`: its energies are `nats` higher."""
    mixture = ScikitMixture(2)
    near = min(np.exp(-nats), 1 - 1e-12)
    mixture.weights_ = np.array([1 - near, near])
    mixture.means_ = np.array([[1e3, 1e3], [centre, centre]])
    mixture.covariances_ = mixture.precisions_ = mixture.precisions_cholesky_ = np.stack([np.eye(2)] * 2)
    mixture.converged_, mixture.n_iter_, mixture.lower_bound_ = True, 1, 0.0
    detector = GaussianMixture.from_sklearn(mixture)
    held = np.random.default_rng(9).normal(centre, 1, (2_000, 2)).astype(np.float32)
    detector.reference_energies_ = np.sort(detector.energy(held))
    return prepare_imported_model(detector, NAMES)


def start_stream(db: Database, first: FittedModel, scene: SimulationSettings) -> tuple[int, SimulatedWriter]:
    """Store a stream with the given first model."""
    stream = Ledger(db).open_stream("payments", MINUTE, RULE.grace_us + RULE.ahead_us)
    ModelStore(db).add(
        stream.id, first.new_model, lambda of, at: build_first_threshold(first.reference, of, at, PERCENTILE)
    )
    assert open_stream(db, 1, scene.rules) == stream.id
    return stream.id, SimulatedWriter(db, stream.id, scene, 0)


def put_in_shadow(db: Database, stream_id: int, model: FittedModel, due_after_us: int | None = None) -> int:
    threshold = estimate_reference_threshold(model.reference, PERCENTILE).value
    new = NewShadow(percentile=PERCENTILE, threshold=threshold, due_after_us=due_after_us)
    return ShadowStore(db).start(stream_id, model.new_model, new).id


def promoter(db: Database, stream_id: int, per_week: float = 1.0) -> Promoter:
    def reference(model_id: int) -> np.ndarray:
        return load_model(*ModelStore(db).load(model_id), "cpu").reference

    rules = make_rules(
        percentile=PERCENTILE,
        look_back_us=120 * MINUTE,
        adopt_after_us=120 * MINUTE,
        size_us=MINUTE,
        per_week=per_week,
        min_outliers=3,
    )
    return Promoter(
        rules,
        stream_id,
        shadows=ShadowStore(db),
        models=ModelStore(db),
        thresholds=ThresholdStore(db),
        reference=reference,
    )


def run_until(
    db: Database, stream_id: int, scene: SimulationSettings, writer: SimulatedWriter, until_us: float
) -> None:
    """Run both planes until the stream is sealed up to a time or its source has ended."""
    plane, promotions = make_control_plane(db, stream_id, scene), promoter(db, stream_id)
    while not writer.ended and (Ledger(db).read_control(stream_id).sealed_until_us or 0) < until_us:
        writer.commit(400)
        plane.run_due()
        promotions.run_due()
    plane.run_due()
    promotions.run_due()


def test_a_refit_with_energies_50_nats_apart_takes_over_without_false_alarms(
    db: Database,
) -> None:
    play = scene()
    stream_id, writer = start_stream(db, shifted_model(), play)
    run_until(db, stream_id, play, writer, T0 + 20 * MINUTE)
    model_id = put_in_shadow(db, stream_id, shifted_model(nats=0.0))
    run_until(db, stream_id, play, writer, T0 + 130 * MINUTE)
    assert fetch_rows(db, "SELECT DISTINCT model_version FROM score_history") == [(1,)], "the shadow flags nothing"

    shadow = ShadowStore(db).current(stream_id)
    assert shadow is not None
    verdict = promoter(db, stream_id).evaluate(shadow)
    assert verdict.holds, verdict
    assert verdict.numbers["energy_difference"] == pytest.approx(-APART, abs=0.2)
    promoter(db, stream_id).promote(model_id)
    run_until(db, stream_id, play, writer, float("inf"))

    per_model = fetch_rows(
        db,
        "SELECT m.version, count(*), sum(w.outliers) * 1.0 / sum(w.events), max(w.outliers) FROM windows w "
        "JOIN thresholds t ON t.id = w.threshold_id JOIN models m ON m.id = t.model_id "
        "WHERE w.judged_at_us IS NOT NULL GROUP BY 1 ORDER BY 1",
    )
    assert [row[0] for row in per_model] == [1, 2]
    for _, windows, share, most in per_model:
        assert int(str(windows)) > 60
        assert 0.003 < float(str(share)) < 0.03, per_model
        assert int(str(most)) < 10, per_model
    assert fetch_rows(db, "SELECT kind FROM incidents WHERE kind IN ('spike', 'slow_rise', 'calibration')") == []
    # The first threshold and count model of the new model come from the windows that it scored as shadow model.
    first = fetch_rows(db, f"SELECT method, n FROM thresholds WHERE model_id = {model_id} ORDER BY id LIMIT 1")
    assert int(str(first[0][1])) > 5_000, first


def test_the_shadow_scores_the_same_events_in_whole_windows_alone(db: Database) -> None:
    play = scene()
    stream_id, writer = start_stream(db, fit_small_model(0), play)
    run_until(db, stream_id, play, writer, T0 + 15 * MINUTE)
    model_id = put_in_shadow(db, stream_id, fit_small_model(0))
    shadow = ShadowStore(db).current(stream_id)
    assert shadow is not None
    run_until(db, stream_id, play, writer, T0 + 90 * MINUTE)
    pairs = fetch_rows(
        db,
        "SELECT s.window_start_us, s.events, w.events, s.outliers FROM shadow_windows s "
        f"JOIN windows w ON w.window_start_us = s.window_start_us WHERE s.model_id = {model_id} ORDER BY 1",
    )
    assert len(pairs) > 50
    assert all(shadow_events == events for _, shadow_events, events, _ in pairs)
    assert int(str(pairs[0][0])) == shadow.since_us
    assert fetch_rows(
        db, "SELECT count(*) FROM shadow_parts WHERE window_end_us <= (SELECT sealed_until_us FROM streams)"
    ) == [(0,)]


def test_a_model_of_other_events_fails_the_gate_and_stays_a_candidate(db: Database) -> None:
    play = scene()
    stream_id, writer = start_stream(db, fit_small_model(0), play)
    run_until(db, stream_id, play, writer, T0 + 15 * MINUTE)
    model_id = put_in_shadow(db, stream_id, shifted_model(centre=4.0, nats=0.0), due_after_us=60 * MINUTE)
    run_until(db, stream_id, play, writer, float("inf"))
    store = ModelStore(db)
    assert [(model.version, model.state) for model in store.list(stream_id)] == [(1, "active"), (2, "candidate")]
    reason = ShadowStore(db).verdicts(stream_id)[model_id]["reason"]
    assert "of the clean events" in reason
    assert "nats more than under the active model" in reason


def test_the_daemon_promotes_when_the_time_has_come_and_the_gate_passes(db: Database) -> None:
    play = scene()
    stream_id, writer = start_stream(db, shifted_model(), play)
    run_until(db, stream_id, play, writer, T0 + 15 * MINUTE)
    put_in_shadow(db, stream_id, shifted_model(nats=0.0), due_after_us=60 * MINUTE)
    run_until(db, stream_id, play, writer, T0 + 75 * MINUTE)
    assert [model.state for model in ModelStore(db).list(stream_id)] == ["active", "shadow"]
    run_until(db, stream_id, play, writer, float("inf"))
    assert [model.state for model in ModelStore(db).list(stream_id)] == ["retired", "active"]
    assert fetch_rows(db, "SELECT kind FROM incidents WHERE kind = 'spike'") == []


def test_a_promotion_interrupted_by_the_database_is_made_at_the_next_step(sqlite_db: Database) -> None:
    db, play = sqlite_db, scene()
    stream_id, writer = start_stream(db, shifted_model(), play)
    run_until(db, stream_id, play, writer, T0 + 15 * MINUTE)
    put_in_shadow(db, stream_id, shifted_model(nats=0.0), due_after_us=60 * MINUTE)
    plane, promotions = make_control_plane(db, stream_id, play), promoter(db, stream_id)
    broken = interrupted_promoter(db, stream_id)
    with pytest.raises(StorageUnavailable):
        while True:
            writer.commit(400)
            plane.run_due()
            broken.run_due()
    while not writer.ended:
        writer.commit(400)
        plane.run_due()
        promotions.run_due()
    assert [model.state for model in ModelStore(db).list(stream_id)] == ["retired", "active"]


def test_an_early_evaluation_does_not_delay_the_promotion(db: Database) -> None:
    play = scene()
    stream_id, writer = start_stream(db, shifted_model(), play)
    run_until(db, stream_id, play, writer, T0 + 15 * MINUTE)
    model_id = put_in_shadow(db, stream_id, shifted_model(nats=0.0), due_after_us=60 * MINUTE)
    ShadowStore(db).store_verdict(model_id, {"holds": None, "reason": "it has scored 0 clean windows"})
    run_until(db, stream_id, play, writer, float("inf"))
    assert [model.state for model in ModelStore(db).list(stream_id)] == ["retired", "active"]
    assert ShadowStore(db).verdicts(stream_id)[model_id]["holds"] is True


def test_a_verdict_on_a_model_that_has_left_the_shadow_is_ignored(db: Database) -> None:
    play, store = scene(), ShadowStore(db)
    stream_id, writer = start_stream(db, fit_small_model(0), play)
    run_until(db, stream_id, play, writer, T0 + 15 * MINUTE)
    first, second = (put_in_shadow(db, stream_id, fit_small_model(0)) for _ in range(2))
    reference = fit_small_model(0).reference
    build_threshold = partial(build_first_threshold, reference)
    verdict = {"holds": True, "reason": "it held"}
    assert not store.end(stream_id, first, verdict)
    assert store.promote(stream_id, first, lambda of, at: build_threshold(of, at, PERCENTILE), verdict) is None
    current = store.current(stream_id)
    assert current is not None
    assert current.model_id == second
    states = [model.state for model in ModelStore(db).list(stream_id)]
    assert states == ["active", "candidate", "shadow"]
    assert store.verdicts(stream_id) == {}


def test_a_promotion_leaves_another_model_in_the_shadow(db: Database) -> None:
    play = scene()
    stream_id, writer = start_stream(db, fit_small_model(0), play)
    run_until(db, stream_id, play, writer, T0 + 15 * MINUTE)
    candidate = put_in_shadow(db, stream_id, fit_small_model(0))
    put_in_shadow(db, stream_id, fit_small_model(0), due_after_us=90 * MINUTE)
    run_until(db, stream_id, play, writer, T0 + 40 * MINUTE)
    promoter(db, stream_id).promote(candidate)
    assert [model.state for model in ModelStore(db).list(stream_id)] == ["retired", "active", "shadow"]
    run_until(db, stream_id, play, writer, float("inf"))
    # It is compared with the present active model, over the windows of that model alone.
    assert [model.state for model in ModelStore(db).list(stream_id)] == ["retired", "retired", "active"]
    assert fetch_rows(db, "SELECT kind FROM incidents WHERE kind = 'spike'") == []


def test_only_whole_shadow_windows_enter_the_look_back_of_a_promoted_model(db: Database) -> None:
    play = scene()
    stream_id, writer = start_stream(db, shifted_model(), play)
    run_until(db, stream_id, play, writer, T0 + 20 * MINUTE)
    model_id = put_in_shadow(db, stream_id, shifted_model(nats=0.0))
    run_until(db, stream_id, play, writer, T0 + 100 * MINUTE)
    writer.commit(130)  # a part of an unfinished window
    assert int(str(fetch_rows(db, "SELECT count(*) FROM shadow_parts")[0][0])) > 0
    promoter(db, stream_id).promote(model_id)
    run_until(db, stream_id, play, writer, float("inf"))
    torn = fetch_rows(
        db,
        "SELECT s.window_start_us FROM shadow_windows s JOIN windows w ON w.stream_id = s.stream_id "
        "AND w.window_start_us = s.window_start_us WHERE s.events <> w.events",
    )
    assert torn == []
    assert fetch_rows(db, "SELECT count(*) FROM shadow_parts") == [(0,)]


def test_a_back_test_over_stored_windows_follows_the_promotion(
    sqlite_db: Database,
) -> None:
    db, play = sqlite_db, scene()
    stream_id, writer = start_stream(db, shifted_model(), play)
    run_until(db, stream_id, play, writer, T0 + 20 * MINUTE)
    model_id = put_in_shadow(db, stream_id, shifted_model(nats=0.0))
    run_until(db, stream_id, play, writer, T0 + 130 * MINUTE)
    promoter(db, stream_id).promote(model_id)
    run_until(db, stream_id, play, writer, float("inf"))
    stream = {
        "source": {"type": "synthetic"},
        "window": {"size": "1m", "grace": "10s", "ahead": "10m"},
        "threshold": {"refresh": "5m", "look_back": "2h", "adopt_after": "2h", "percentile": PERCENTILE},
        "alerts": {"min_outliers": 3, "resolve_after": 2},
    }
    settings = Settings.model_validate(
        {"database": {"url": f"sqlite:///{db.file}"}, "device": "cpu", "streams": {"payments": stream}}
    )
    (memory,) = backtest(settings, "payments", percentiles=[PERCENTILE], false_alarms=["1/week"]).memories
    names = ("model_id", "computed_at_us", "valid_from_us", "threshold", "method", "n")
    stored = fetch_rows(db, f"SELECT {', '.join(names)} FROM thresholds ORDER BY id")
    assert {row[0] for row in stored} == {1, model_id}
    assert [tuple(getattr(row, name) for name in names) for row in memory.thresholds] == stored


def interrupted_promoter(db: Database, stream_id: int) -> Promoter:
    """Return a promoter that loses the database after its verdict and before the promotion."""
    whole = promoter(db, stream_id)
    calls: list[int] = []

    def reference(model_id: int) -> np.ndarray:
        calls.append(model_id)
        if len(calls) > 1:
            raise StorageUnavailable("the database is unavailable")
        return whole._reference(model_id)

    return Promoter(
        whole._rules_at(T0),
        stream_id,
        shadows=ShadowStore(db),
        models=ModelStore(db),
        thresholds=ThresholdStore(db),
        reference=reference,
    )
