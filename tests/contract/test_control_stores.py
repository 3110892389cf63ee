"""The contract of the control plane's stores, tested on SQLite, on PostgreSQL and on the memory of a back-test."""

import os
from collections.abc import Callable, Iterator

import pytest

from config.time_format import DAY_US
from storage.control.drift import DriftBaselineRow, DriftDayRow, DriftModel, DriftUpdate, DriftVerdictRow, StoredDays
from storage.control.records import Incident, SealFacts, WindowFacts
from storage.control.thresholds import CalibrationRow
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from tests.contract.control_stores import (
    STREAM_LEAD_US,
    BacktestStores,
    ControlStores,
    DatabaseStores,
    incident,
    make_judgement,
    new_threshold,
    part,
)
from tests.integration.storage.commits import MINUTE, T0
from tests.servers.postgres import PostgresServer

HOUR = 60 * MINUTE


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres), "memory"])
def open_stores(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], ControlStores]]:
    """A factory of stores for a new stream. All streams of one kind of database share one database."""
    if request.param == "memory":
        yield BacktestStores
        return
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('stores') / 'outrider.db'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.create_database()
        request.addfinalizer(lambda: server.drop_database(url))
    with Database(url) as db:
        upgrade(db)
        yield lambda name: DatabaseStores(db, name)


@pytest.fixture
def stores(open_stores: Callable[[str], ControlStores]) -> ControlStores:
    return open_stores(f"stream-{os.urandom(4).hex()}")


def seal_until(stores: ControlStores, minutes: int) -> SealFacts:
    """Seal the first `minutes` windows after T0; return the input of the decision."""
    seen: list[SealFacts] = []

    def decide(facts: SealFacts) -> int:
        seen.append(facts)
        return T0 + minutes * MINUTE

    assert stores.windows.seal(stores.stream_id, decide) == T0 + minutes * MINUTE
    return seen[0]


def judge_due(stores: ControlStores, **values: object) -> list[WindowFacts]:
    """Judge all due windows with the given values; return their facts."""
    judged = []
    for start_us in stores.windows.due_windows(stores.stream_id):
        facts = stores.windows.read_window(stores.stream_id, start_us)
        assert facts is not None
        assert store(stores, facts, **values)
        judged.append(facts)
    return judged


def store(stores: ControlStores, facts: WindowFacts, **values: object) -> bool:
    """Store the judgement of a window with the given values."""
    judgement = make_judgement(facts, **values)  # type: ignore[arg-type]
    return stores.windows.store_judgement(stores.stream_id, stores.stream, facts, judgement)


def judge_windows(stores: ControlStores, minutes: int, **values: object) -> list[WindowFacts]:
    """Commit one part for each of the first `minutes` windows after T0, seal and judge them."""
    stores.commit(*(part(stores, minute) for minute in range(minutes)), watermark_us=T0 + minutes * MINUTE)
    seal_until(stores, minutes)
    return judge_due(stores, **values)


def store_drift(stores: ControlStores, until_us: int, before_us: int | None, **values: object) -> bool:
    """Store a drift step up to `until_us`."""
    update = DriftUpdate(until_us=until_us, **({"state": {}, "update_incidents": lambda _: ()} | values))  # type: ignore[arg-type]
    return stores.drift.store_update(stores.stream_id, stores.stream, before_us, update)


def test_seal_reads_the_source_and_the_unjudged_parts(stores: ControlStores) -> None:
    stores.commit(part(stores, 0), part(stores, 3), watermark_us=T0 + 4 * MINUTE)
    facts = seal_until(stores, 2)
    assert [(source.watermark_us, source.ended) for source in facts.sources] == [(T0 + 4 * MINUTE, False)]
    assert (facts.sealed_until_us, facts.last_tick_us, facts.last_judged_end_us) == (None, None, None)
    assert (facts.first_part_end_us, facts.last_part_end_us) == (T0 + MINUTE, T0 + 4 * MINUTE)


def test_ended_source_is_ended_and_idle_for_the_seal(stores: ControlStores) -> None:
    stores.commit(part(stores, 0), watermark_us=T0)
    stores.end_source()
    assert [(source.ended, source.idle) for source in seal_until(stores, 1).sources] == [(True, True)]


def test_seal_does_not_move_when_the_decision_is_none(stores: ControlStores) -> None:
    seal_until(stores, 1)
    assert stores.windows.seal(stores.stream_id, lambda _: None) is None
    assert seal_until(stores, 2).sealed_until_us == T0 + MINUTE


def test_sealed_windows_with_parts_are_due_in_order(stores: ControlStores) -> None:
    stores.commit(part(stores, 2), part(stores, 0), part(stores, 1))
    assert stores.windows.due_windows(stores.stream_id) == []
    seal_until(stores, 2)
    assert stores.windows.due_windows(stores.stream_id) == [T0, T0 + MINUTE]
    assert stores.windows.due_windows(stores.stream_id, limit=1) == [T0]


def test_judging_receives_all_parts_of_the_window_and_removes_them(stores: ControlStores) -> None:
    stores.commit(part(stores, 0, events=3, outliers=1), part(stores, 1))
    stores.commit(part(stores, 0, events=2, late=4, dead=1))
    seal_until(stores, 1)
    (facts,) = judge_due(stores)
    assert (facts.window_start_us, facts.window_end_us) == (T0, T0 + MINUTE)
    assert [(each.events, each.outliers, each.late, each.dead) for each in facts.parts] == [(3, 1, 0, 0), (2, 0, 4, 1)]
    assert {each.threshold_id for each in facts.parts} == {stores.threshold_id}
    assert facts.last_judged_end_us is None
    assert stores.windows.due_windows(stores.stream_id) == []
    assert stores.windows.read_window(stores.stream_id, T0) is None


def test_judgement_is_stored_once(stores: ControlStores) -> None:
    (facts,) = judge_windows(stores, 1)
    assert not store(stores, facts)
    assert len(stores.thresholds.judged_windows(stores.stream_id, stores.model_id, T0, T0 + HOUR)) == 1


def test_judgement_is_rejected_when_the_open_incidents_have_changed(stores: ControlStores) -> None:
    stores.commit(part(stores, 0))
    seal_until(stores, 1)
    facts = stores.windows.read_window(stores.stream_id, T0)
    assert facts is not None
    assert store_drift(stores, T0, None, update_incidents=lambda _: [incident("drift", T0)])
    assert not store(stores, facts)
    assert stores.windows.due_windows(stores.stream_id) == [T0]
    assert len(judge_due(stores)) == 1


def test_part_committed_after_reading_the_facts_remains_as_a_late_part(stores: ControlStores) -> None:
    stores.commit(part(stores, 0, events=3))
    seal_until(stores, 1)
    facts = stores.windows.read_window(stores.stream_id, T0)
    assert facts is not None
    stores.commit(part(stores, 0, events=0, late=2))
    assert store(stores, facts)
    assert stores.windows.due_windows(stores.stream_id) == [T0]
    assert stores.windows.add_late_parts(stores.stream_id, T0)


def test_late_parts_of_a_judged_window_are_added_once(stores: ControlStores) -> None:
    judge_windows(stores, 2)
    stores.commit(part(stores, 0, events=0, late=5, dead=2))
    assert stores.windows.due_windows(stores.stream_id) == [T0]
    facts = stores.windows.read_window(stores.stream_id, T0)
    assert facts is not None
    assert facts.is_judged
    assert stores.windows.add_late_parts(stores.stream_id, T0)
    assert not stores.windows.add_late_parts(stores.stream_id, T0)
    assert stores.windows.due_windows(stores.stream_id) == []


def test_parts_of_an_unjudged_window_are_not_late_parts(stores: ControlStores) -> None:
    stores.commit(part(stores, 0, events=0, late=5))
    seal_until(stores, 1)
    assert not stores.windows.add_late_parts(stores.stream_id, T0)
    assert stores.windows.due_windows(stores.stream_id) == [T0]


def test_late_parts_are_not_unjudged_parts(stores: ControlStores) -> None:
    judge_windows(stores, 1)
    stores.commit(part(stores, 0, events=0, dead=1), part(stores, 1, events=0, late=1), part(stores, 2))
    assert stores.thresholds.tick_facts(stores.stream_id).first_part_end_us == T0 + 3 * MINUTE
    facts = seal_until(stores, 1)
    assert (facts.first_part_end_us, facts.last_judged_end_us) == (T0 + 3 * MINUTE, T0 + MINUTE)


def test_judge_state_is_passed_to_the_next_window_until_it_is_replaced(stores: ControlStores) -> None:
    stores.commit(part(stores, 0), part(stores, 1), part(stores, 2))
    for minute, state in enumerate(({"n": 1}, None)):
        seal_until(stores, minute + 1)
        judge_due(stores, state=state)
    seal_until(stores, 3)
    (facts,) = judge_due(stores)
    assert facts.state == {"n": 1}
    assert facts.last_judged_end_us == T0 + 2 * MINUTE


def test_open_incident_is_input_of_the_next_window_until_it_is_resolved(stores: ControlStores) -> None:
    judge_windows(stores, 1, incidents=(incident("spike", T0 + MINUTE),))
    stores.commit(part(stores, 1), part(stores, 2))
    seal_until(stores, 2)
    (facts,) = judge_due(stores)
    (opened,) = facts.open_incidents
    assert opened == incident("spike", T0 + MINUTE).with_id(opened.id or 0)
    resolved: list[Incident] = [incident("spike", T0 + MINUTE, opened.id, status="resolved")]
    assert stores.thresholds.store_tick(
        stores.stream_id, last_tick_us=None, tick_us=T0, threshold=None, calibration=None, change=lambda _: resolved
    )
    seal_until(stores, 3)
    assert judge_due(stores)[0].open_incidents == []


def test_gap_is_input_of_the_first_window_that_ends_after_it_until_it_has_an_incident(stores: ControlStores) -> None:
    stores.commit(part(stores, 0), part(stores, 1), part(stores, 2), watermark_us=T0 + 30)
    stores.commit_gap("retention", T0 + MINUTE + 30)
    seal_until(stores, 3)
    seen = judge_due(stores, gap_incident=True)
    assert [[gap.reason for gap in facts.gaps] for facts in seen] == [[], ["retention"], []]


def test_tick_facts_hold_the_seal_the_last_tick_and_the_lead(stores: ControlStores) -> None:
    facts = stores.thresholds.tick_facts(stores.stream_id)
    assert (facts.sealed_until_us, facts.last_tick_us, facts.last_judged_end_us) == (None, None, None)
    assert (facts.first_part_end_us, facts.lead_us, facts.acceptances) == (None, STREAM_LEAD_US, 0)
    judge_windows(stores, 2)
    facts = stores.thresholds.tick_facts(stores.stream_id)
    assert (facts.sealed_until_us, facts.last_judged_end_us) == (T0 + 2 * MINUTE, T0 + 2 * MINUTE)


def test_tick_is_rejected_when_another_tick_was_stored(stores: ControlStores) -> None:
    def store_tick(last_tick_us: int | None, tick_us: int, threshold: float) -> bool:
        return stores.thresholds.store_tick(
            stores.stream_id,
            last_tick_us=last_tick_us,
            tick_us=tick_us,
            threshold=new_threshold(stores.model_id, tick_us, threshold),
            calibration=CalibrationRow(
                at_us=tick_us,
                promised_per_week=1.0,
                realised_per_week=None,
                windows_learned=0,
                dispersion=1.0,
                exceedance=0.01,
                state="provisional",
            ),
        )

    assert store_tick(None, T0, 11.0)
    assert not store_tick(None, T0 + MINUTE, 12.0)
    newest = stores.thresholds.newest_threshold(stores.stream_id)
    assert newest is not None
    assert newest.threshold == 11.0
    assert stores.thresholds.tick_facts(stores.stream_id).last_tick_us == T0
    assert store_tick(T0, T0 + MINUTE, 12.0)


def test_threshold_rows_are_returned_as_stored(stores: ControlStores) -> None:
    row = new_threshold(stores.model_id, T0, 12.5)
    stores.thresholds.store_tick(stores.stream_id, last_tick_us=None, tick_us=T0, threshold=row, calibration=None)
    newest = stores.thresholds.newest_threshold(stores.stream_id)
    assert newest is not None
    assert newest == row.with_id(newest.id)
    assert stores.thresholds.threshold(newest.id) == newest


def test_newest_threshold_is_the_one_with_the_latest_start_of_validity(stores: ControlStores) -> None:
    _, threshold_id = stores.activate(T0 + HOUR)
    row = new_threshold(stores.model_id, T0)
    stores.thresholds.store_tick(stores.stream_id, last_tick_us=None, tick_us=T0, threshold=row, calibration=None)
    newest = stores.thresholds.newest_threshold(stores.stream_id)
    assert newest is not None
    assert newest.id == threshold_id


def test_judged_windows_lie_within_the_bounds(stores: ControlStores) -> None:
    judge_windows(stores, 5)
    found = stores.thresholds.judged_windows(stores.stream_id, stores.model_id, T0 + MINUTE, T0 + 4 * MINUTE)
    assert [window.window_start_us for window in found] == [T0 + MINUTE, T0 + 2 * MINUTE, T0 + 3 * MINUTE]
    assert (found[0].events, found[0].outliers, found[0].payload) == (1, 0, b"part of 1")


def test_judged_window_has_the_start_of_its_finding(stores: ControlStores) -> None:
    judge_windows(stores, 1)
    stores.commit(part(stores, 1))
    seal_until(stores, 2)
    judge_due(stores, details={"fired": "slow_rise", "since_us": T0})
    found = stores.thresholds.judged_windows(stores.stream_id, stores.model_id, T0, T0 + 2 * MINUTE)
    assert [(window.fired, window.fired_since_us) for window in found] == [(False, None), (True, T0)]


def test_judged_windows_are_those_of_the_model(stores: ControlStores) -> None:
    model_id, threshold_id = stores.activate(T0 + MINUTE)
    stores.commit(part(stores, 0), part(stores, 1, threshold_id=threshold_id))
    seal_until(stores, 2)
    judge_due(stores)
    for each, start_us in ((stores.model_id, T0), (model_id, T0 + MINUTE)):
        found = stores.thresholds.judged_windows(stores.stream_id, each, T0, T0 + HOUR)
        assert [window.window_start_us for window in found] == [start_us]


def test_judged_windows_include_those_that_the_model_scored_in_shadow(stores: ControlStores) -> None:
    model_id, threshold_id = stores.activate(T0 + 2 * MINUTE)
    stores.commit(part(stores, 0), part(stores, 1), part(stores, 2, threshold_id=threshold_id))
    seal_until(stores, 3)
    judge_due(stores)
    stores.score_in_shadow(model_id, 1)
    found = stores.thresholds.judged_windows(stores.stream_id, model_id, T0, T0 + HOUR)
    assert [(window.window_start_us, window.payload) for window in found] == [
        (T0 + MINUTE, b"shadow of 1"),
        (T0 + 2 * MINUTE, b"part of 2"),
    ]
    found = stores.thresholds.judged_windows(stores.stream_id, stores.model_id, T0, T0 + HOUR)
    assert [window.payload for window in found] == [b"part of 0", b"part of 1"]


def test_window_counts_are_those_of_all_models_within_the_bounds(stores: ControlStores) -> None:
    _, threshold_id = stores.activate(T0 + 2 * MINUTE)
    stores.commit(
        *(part(stores, minute, events=9, outliers=minute + 5) for minute in (0, 1)),
        part(stores, 2, events=9, outliers=7, threshold_id=threshold_id),
        part(stores, 3, dead=1, events=0),
        part(stores, 4, events=9, threshold_id=threshold_id),
    )
    seal_until(stores, 2)
    judge_due(stores, details={"fired": "spike", "limit": 4})
    seal_until(stores, 3)
    judge_due(stores, details={"fired": "slow_rise", "since_us": T0})
    seal_until(stores, 5)
    judge_due(stores)
    found = stores.thresholds.window_counts(stores.stream_id, T0 + MINUTE, T0 + 4 * MINUTE)
    assert [(each.window_start_us, each.window_end_us, each.events, each.outliers) for each in found] == [
        (T0 + MINUTE, T0 + 2 * MINUTE, 9, 6),
        (T0 + 2 * MINUTE, T0 + 3 * MINUTE, 9, 7),
    ]
    assert [(each.limit, each.rise_since_us, each.clipped_outliers) for each in found] == [(4, None, 5), (None, T0, 7)]


def test_firings_are_counted_by_kind_and_opening_time(stores: ControlStores) -> None:
    judge_windows(stores, 4)
    opened = [
        incident("spike", T0 + MINUTE),
        incident("drift", T0 + 2 * MINUTE),
        incident("slow_rise", T0 + 3 * MINUTE),
    ]
    stores.thresholds.store_tick(
        stores.stream_id, last_tick_us=None, tick_us=T0, threshold=None, calibration=None, change=lambda _: opened
    )
    kinds = ("spike", "slow_rise")
    assert stores.thresholds.count_firings(stores.stream_id, kinds, T0, T0 + 4 * MINUTE) == (2, 4)
    assert stores.thresholds.count_firings(stores.stream_id, kinds, T0 + MINUTE, T0 + 3 * MINUTE) == (1, 2)


def test_model_without_acceptance_has_no_accepted_reference(stores: ControlStores) -> None:
    assert stores.thresholds.accepted_reference(stores.model_id) is None


def test_drift_facts_hold_the_first_window_by_horizon(stores: ControlStores) -> None:
    facts = stores.drift.drift_facts(stores.stream_id, [10 * MINUTE])
    assert (facts.until_us, facts.rebased_from_us, facts.state) == (None, None, {})
    assert facts.first_windows_us == {10 * MINUTE: None}
    stores.commit(part(stores, 1), part(stores, 65), part(stores, 80))
    seal_until(stores, 81)
    judge_due(stores)
    horizons = [10 * MINUTE, HOUR]
    assert stores.drift.drift_facts(stores.stream_id, horizons).first_windows_us == dict.fromkeys(horizons, T0 + MINUTE)
    assert store_drift(stores, T0 + 75 * MINUTE, None, state={"n": 1})
    facts = stores.drift.drift_facts(stores.stream_id, horizons)
    assert (facts.until_us, facts.state, facts.sealed_until_us) == (T0 + 75 * MINUTE, {"n": 1}, T0 + 81 * MINUTE)
    assert facts.first_windows_us == {10 * MINUTE: T0 + 80 * MINUTE, HOUR: T0 + 65 * MINUTE}
    assert facts.next_window_us == T0 + 80 * MINUTE


def test_drift_facts_hold_the_first_unjudged_window(stores: ControlStores) -> None:
    judge_windows(stores, 1)
    stores.commit(part(stores, 4))
    assert stores.drift.drift_facts(stores.stream_id, []).first_part_end_us == T0 + 5 * MINUTE


def test_drift_step_is_rejected_when_another_step_was_stored(stores: ControlStores) -> None:
    assert store_drift(stores, T0, None)
    assert not store_drift(stores, T0 + MINUTE, None, state={"n": 2})
    facts = stores.drift.drift_facts(stores.stream_id, [])
    assert (facts.until_us, facts.state) == (T0, {})
    assert store_drift(stores, T0 + MINUTE, T0)


def test_drift_step_writes_incidents(stores: ControlStores) -> None:
    assert store_drift(stores, T0, None, update_incidents=lambda _: [incident("drift", T0)])
    (facts,) = judge_windows(stores, 1)
    assert [each.kind for each in facts.open_incidents] == ["drift"]


def test_drift_bases_are_returned_by_their_start(stores: ControlStores) -> None:
    baselines = [
        DriftBaselineRow(horizon_us=length, from_us=from_us, until_us=from_us + HOUR, baseline={"mean": [1.0]})
        for length, from_us in ((HOUR, T0), (2 * HOUR, T0), (HOUR, T0 + HOUR))
    ]
    verdict = DriftVerdictRow(
        horizon="1h",
        window_start_us=T0,
        window_end_us=T0 + HOUR,
        statistic="mean",
        feature="x",
        before=0.0,
        after=1.0,
        effect=1.0,
        z=5.0,
        limit=4.0,
        drifted=True,
    )
    assert store_drift(stores, T0, None, baselines=baselines, verdicts=[verdict])
    assert stores.drift.baselines(stores.stream_id, T0) == baselines
    assert stores.drift.baselines(stores.stream_id, T0 + HOUR) == baselines[2:]


def test_drift_days_are_those_of_the_newest_base_since_the_oldest_to_keep(stores: ControlStores) -> None:
    days = [
        DriftDayRow(
            start_us=T0 + number * DAY_US,
            end_us=T0 + (number + 1) * DAY_US,
            events=number,
            outliers=0,
            fired=number == 1,
            hours=24,
            payload=bytes([number]),
        )
        for number in range(4)
    ]

    def store(at_us: int, before_us: int | None, base_us: int, keep_us: int, rows: list[DriftDayRow]) -> bool:
        stored = StoredDays(base_from_us=base_us, keep_from_us=keep_us, rows=rows)
        return store_drift(stores, at_us, before_us, days=stored)

    assert store(T0, None, T0, T0, days[:2])
    assert store(T0 + 1, T0, T0, T0 + DAY_US, days[2:3])
    assert stores.drift.days(stores.stream_id, T0) == days[1:3]
    assert stores.drift.days(stores.stream_id, T0 + 1) == []
    assert store(T0 + 2, T0 + 1, T0 + 1, T0, days[3:])
    assert stores.drift.days(stores.stream_id, T0) == []
    assert stores.drift.days(stores.stream_id, T0 + 1) == days[3:]


def test_drift_windows_are_those_of_the_model_within_the_bounds(stores: ControlStores) -> None:
    _, threshold_id = stores.activate(T0 + 3 * MINUTE)
    own = [part(stores, 0), part(stores, 1, events=4, outliers=2), part(stores, 2)]
    stores.commit(*own, part(stores, 3, threshold_id=threshold_id))
    seal_until(stores, 4)
    judge_due(stores)
    found = list(stores.drift.windows(stores.stream_id, stores.model_id, T0 + MINUTE, T0 + 4 * MINUTE))
    assert [(each.window_start_us, each.events, each.outliers, each.fired) for each in found] == [
        (T0 + MINUTE, 4, 2, False),
        (T0 + 2 * MINUTE, 1, 0, False),
    ]
    assert found[0].payload == b"part of 1"


def test_model_before_is_that_of_the_last_window_with_the_start_of_its_activation(stores: ControlStores) -> None:
    assert stores.drift.find_model_before(stores.stream_id, T0 + HOUR) is None
    model_id, threshold_id = stores.activate(T0 + MINUTE)
    stores.commit(part(stores, 0), part(stores, 2, threshold_id=threshold_id))
    seal_until(stores, 3)
    judge_due(stores)
    assert stores.drift.find_model_before(stores.stream_id, T0) is None
    assert stores.drift.find_model_before(stores.stream_id, T0 + 2 * MINUTE) == DriftModel(
        model_id=stores.model_id, activated_us=0, season=None
    )
    assert stores.drift.find_model_before(stores.stream_id, T0 + HOUR) == DriftModel(
        model_id=model_id, activated_us=T0 + MINUTE, season=None
    )


def test_model_that_is_activated_again_starts_at_its_last_activation(stores: ControlStores) -> None:
    _, other_id = stores.activate(T0 + MINUTE)
    row = new_threshold(stores.model_id, T0 + 3 * MINUTE)
    stores.thresholds.store_tick(stores.stream_id, last_tick_us=None, tick_us=T0, threshold=row, calibration=None)
    newest = stores.thresholds.newest_threshold(stores.stream_id)
    assert newest is not None
    stores.commit(part(stores, 0), part(stores, 1, threshold_id=other_id), part(stores, 3, threshold_id=newest.id))
    seal_until(stores, 4)
    judge_due(stores)
    assert stores.drift.find_model_before(stores.stream_id, T0 + MINUTE) == DriftModel(
        model_id=stores.model_id, activated_us=0, season=None
    )
    assert stores.drift.find_model_before(stores.stream_id, T0 + HOUR) == DriftModel(
        model_id=stores.model_id, activated_us=T0 + 3 * MINUTE, season=None
    )
