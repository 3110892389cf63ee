"""Replay: the same records give the same rows under any cuts, speed, restarts and lease holders."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from config.stream_rules import RefitRules
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from tests.integration.control.simulation import (
    Rows,
    SimulationSettings,
    make_records,
    read_decisions,
    run_at_random,
    run_in_turn,
)
from tests.integration.control.worker_bench import MINUTE, SECOND, T0, count_rows, fetch_rows
from tests.rules import make_rules

SCENES = {
    "minutes": SimulationSettings(
        rules=make_rules(size_us=MINUTE, grace_us=10 * SECOND, ahead_us=3 * MINUTE, max_future_us=None),
        refresh=timedelta(minutes=5),
        look_back=timedelta(minutes=10),
        sources=[
            make_records(1, n=500, span_s=1300, anomalous=(0.5, 0.65)),
            make_records(2, n=300, span_s=1100, number=1),
            make_records(3, n=120, span_s=1300, number=2, anomalous=(0.55, 0.7)),
        ],
    ),
    "windows that no tick ends on": SimulationSettings(
        rules=make_rules(size_us=45 * SECOND, grace_us=5 * SECOND, ahead_us=MINUTE, max_future_us=None),
        refresh="*/2 * * * *",
        look_back=timedelta(minutes=8),
        sources=[
            make_records(4, n=300, span_s=900, anomalous=(0.4, 0.5)),
            make_records(5, n=300, span_s=900, number=1),
        ],
    ),
    "ticks far apart": SimulationSettings(
        rules=make_rules(size_us=SECOND, grace_us=SECOND, ahead_us=20 * SECOND, max_future_us=None),
        refresh=timedelta(minutes=5),
        look_back=timedelta(minutes=10),
        fires=False,
        sources=[make_records(6, n=550, span_s=420)],
    ),
    "a slow rise": SimulationSettings(
        rules=make_rules(size_us=2 * SECOND, grace_us=2 * SECOND, ahead_us=20 * SECOND, max_future_us=None),
        refresh=timedelta(minutes=1),
        look_back=timedelta(minutes=10),
        kinds=frozenset({"slow_rise"}),
        sources=[make_records(10, n=2400, span_s=480, anomalous=(0.5, 1.0), share=0.15, factor=2.5)],
    ),
    "settings that change": SimulationSettings(
        rules=make_rules(size_us=MINUTE, grace_us=10 * SECOND, ahead_us=3 * MINUTE, max_future_us=None),
        refresh=timedelta(minutes=5),
        look_back=timedelta(minutes=10),
        sources=[
            make_records(1, n=500, span_s=1300, anomalous=(0.5, 0.65)),
            make_records(2, n=300, span_s=1100, number=1),
        ],
        changes=(
            (T0 + 540 * SECOND, {"size_us": 90 * SECOND, "grace_us": SECOND}),
            (T0 + 600 * SECOND, {"percentile": 98.0, "min_outliers": 2, "refresh": timedelta(minutes=2)}),
            (T0 + 900 * SECOND, {"size_us": MINUTE, "grace_us": 15 * SECOND, "ahead_us": 2 * MINUTE}),
        ),
    ),
    "a model that follows": SimulationSettings(
        rules=make_rules(
            size_us=5 * MINUTE,
            grace_us=10 * SECOND,
            ahead_us=10 * MINUTE,
            max_future_us=None,
            sample_size=8,
            refit=RefitRules(every_us=180 * MINUTE, over_us=300 * MINUTE),
        ),
        refresh=timedelta(minutes=30),
        look_back=timedelta(hours=3),
        per_week=1.0,
        sources=[
            make_records(1, n=1_200, span_s=43_200, anomalous=(0.49, 0.505), share=0.9),
            make_records(2, n=800, span_s=43_200, number=1),
        ],
    ),
    "a file": SimulationSettings(
        rules=make_rules(size_us=MINUTE, grace_us=10 * SECOND, ahead_us=3 * MINUTE, max_future_us=2 * MINUTE),
        refresh=timedelta(minutes=5),
        look_back=timedelta(minutes=10),
        fires=False,
        sources=[make_records(7, n=400, span_s=1300, anomalous=(0.5, 0.6))],
    ),
}


@dataclass(frozen=True, kw_only=True)
class ReplayedRun:
    """A scene and the databases of its different runs."""

    scene: SimulationSettings
    in_turn: Database
    backlog: Database
    at_random: list[Database]

    def expected(self) -> dict[str, Rows]:
        return read_decisions(self.in_turn)


@pytest.fixture(scope="module", params=list(SCENES))
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplayedRun]:
    scene = SCENES[str(request.param)]
    with ExitStack() as stack:
        databases = [stack.enter_context(new_database(tmp_path_factory.mktemp("run"))) for _ in range(4)]
        run_in_turn(databases[0], scene, n=50)
        run_in_turn(databases[1], scene)
        for seed, db in enumerate(databases[2:]):
            run_at_random(db, scene, seed)
        yield ReplayedRun(scene=scene, in_turn=databases[0], backlog=databases[1], at_random=databases[2:])


def new_database(folder: Path) -> Database:
    db = Database(f"sqlite:///{folder / 'outrider.db'}")
    upgrade(db)
    return db


def test_any_order_of_the_same_steps_gives_the_same_rows(ran: ReplayedRun) -> None:
    expected = ran.expected()
    for db in ran.at_random:
        for name, found in read_decisions(db).items():
            assert found == expected[name], name
    assert len(expected["thresholds"]) > 1
    states = {row[1] for row in expected["refits"]}
    assert states >= ({"promoted", "postponed"} if ran.scene.rules.refit else set()), states
    assert {row[0] for row in expected["samples"]} == {row[0] for row in expected["windows"] if row[2]}
    assert any(kind != "late" for kind, *_ in expected["incidents"]) == ran.scene.fires
    assert ran.scene.kinds <= {row[0] for row in expected["incidents"]}


def test_a_backlog_in_one_piece_gets_the_thresholds_of_its_event_times(ran: ReplayedRun) -> None:
    assert read_decisions(ran.backlog) == ran.expected()


def test_every_record_is_in_one_window_late_or_a_dead_letter(ran: ReplayedRun) -> None:
    for db in (ran.in_turn, *ran.at_random):
        assert count_rows(db, "window_parts") == 0
        n_events = sum(len(each.events) for each in ran.scene.sources)
        n_dead = sum(len(each.dead_letters) for each in ran.scene.sources)
        strays = fetch_number(db, "SELECT count(*) FROM dead_letters WHERE reason = 'future_time'")
        assert count_rows(db, "scores") == n_events - strays
        assert count_rows(db, "dead_letters") == n_dead + strays
        assert fetch_number(db, "SELECT sum(events + late) FROM windows") == count_rows(db, "scores")
        above = "SELECT count(*) FROM scores s JOIN thresholds t ON t.id = s.threshold_id WHERE s.energy > t.threshold"
        assert fetch_number(db, above) == count_rows(db, "outliers") > 0


def test_a_threshold_is_valid_only_after_the_lead_at_the_time_of_its_tick(ran: ReplayedRun) -> None:
    lead = ran.scene.rules.grace_us + ran.scene.rules.ahead_us
    early = f"SELECT count(*) FROM thresholds WHERE computed_at_us > 0 AND valid_from_us < computed_at_us + {lead}"
    mixed = (
        "SELECT count(DISTINCT s.threshold_id) FROM scores s JOIN windows w ON s.event_time_us >= w.window_start_us "
        "AND s.event_time_us < w.window_end_us GROUP BY w.window_start_us"
    )
    for db in (ran.in_turn, *ran.at_random):
        assert fetch_number(db, early) == 0
        assert {row[0] for row in fetch_rows(db, mixed)} == {1}


def fetch_number(db: Database, query: str) -> int:
    return int(str(fetch_rows(db, query)[0][0]))


def test_a_gap_of_days_in_event_time_blocks_no_source(tmp_path: Path) -> None:
    before = make_records(8, n=200, span_s=900)
    times = before.events.times_us.copy()
    times[len(times) // 2 :] += 3 * 86_400 * SECOND
    gapped = replace(before, events=replace(before.events, times_us=times))
    scene = replace(SCENES["minutes"], sources=[gapped, make_records(9, n=150, span_s=900, number=1)])
    with new_database(tmp_path) as first:
        run_in_turn(first, scene, n=100)
        assert fetch_number(first, "SELECT max(window_start_us) FROM windows") > T0 + 2 * 86_400 * SECOND
        expected = read_decisions(first)
    (tmp_path / "second").mkdir()
    with new_database(tmp_path / "second") as second:
        run_at_random(second, scene, seed=5)
        assert read_decisions(second) == expected
