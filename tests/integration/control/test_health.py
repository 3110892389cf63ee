"""The view `health`: the state of each stream from the reports of its processes, its leases, sources and incidents."""

import sqlalchemy as sa

from monitor.daemon.health_watch import HealthWatch
from monitor.daemon.stream_supervisor import StreamCondition
from monitor.health.stream_health import HealthState, StreamHealth, judge_streams
from monitor.pipeline.waiting import WaitingPartition
from storage.control.health import HealthReport, HealthStore
from storage.database.engine import Database
from storage.database.leases import Leases
from storage.database.tables import FOREVER_US, health_reports, incidents, leases, positions
from storage.database.views import NO_LEASE, NO_REPORT, UNCLAIMED
from storage.queries.health import read_health, read_health_facts
from tests.integration.control.worker_bench import RULE, SECOND, T0, partition


def report(db: Database, stream_id: int, replica: str, *reports: HealthReport) -> None:
    HealthStore(db).replace_reports(replica, {stream_id: reports})


def of(state: str, component: str = "stream", reason: str | None = None, since_us: int = T0) -> HealthReport:
    return HealthReport(component=component, state=state, since_us=since_us, reason=reason)


def hold_lease(db: Database, replica: str = "a") -> None:
    """Let a process hold the lease and all partitions."""
    assert Leases(db).acquire("control:payments", f"{replica}:1", 10)
    with db.write() as conn:
        conn.execute(sa.update(positions).values(owner=f"{replica}:1"))


def judge(db: Database) -> StreamHealth:
    """Return the health by the function, which must agree with the view on whether the stream is well."""
    health = judge_streams(read_health_facts(db))["payments"]
    assert (health.first_obstacle is None) == all(
        row.is_well and row.state not in {"held", "starting"} for row in read_health(db)
    )
    return health


def states(db: Database) -> list[tuple[str, str, int | None, str | None]]:
    return [(row.component, row.state, row.since_us, row.reason) for row in read_health(db)]


def open_incident(db: Database, stream_id: int, kind: str) -> None:
    with db.write() as conn:
        conn.execute(
            incidents.insert().values(
                id=5,
                stream_id=stream_id,
                kind=kind,
                severity="warning",
                status="open",
                window_start_us=T0,
                opened_at_us=T0 + SECOND,
                last_told_us=T0 + SECOND,
                clean_windows=0,
                windows_fired=1,
                summary="why",
            )
        )


def test_a_stream_without_reports_and_lease_does_not_run(db: Database, stream_id: int) -> None:
    assert states(db) == [("stream", "not_running", None, None)]
    hold_lease(db)
    assert states(db)[0][1:] == ("unknown", None, NO_REPORT)
    assert judge(db).reason == NO_REPORT


def test_reports_name_the_state_and_each_part_with_a_problem(db: Database, stream_id: int) -> None:
    report(
        db,
        stream_id,
        "a",
        of("waiting_for_kafka", reason="Kafka at b:1 does not answer", since_us=T0 + 7),
        of("unavailable", "kafka", reason="Kafka at b:1 does not answer", since_us=T0 + 7),
    )
    why = "Kafka at b:1 does not answer"
    assert states(db) == [("stream", "waiting_for_kafka", T0 + 7, why), ("kafka", "unavailable", T0 + 7, why)]
    assert [each.state for each in judge(db).problems] == ["waiting_for_kafka", "unavailable"]
    report(db, stream_id, "a", of("running"))
    assert states(db)[0][1:] == ("unknown", None, NO_LEASE)
    with db.write() as conn:
        conn.execute(sa.update(positions).values(owner="a:1"))
    assert (judge(db).state, judge(db).reason) == (HealthState.UNKNOWN, NO_LEASE)
    hold_lease(db, "b")
    assert states(db)[0][1] == "unknown", "the process that holds the lease does not report"
    Leases(db).release("control:payments", "b:1")
    hold_lease(db)
    assert states(db) == [("stream", "running", T0, None)]
    assert judge(db).first_fault is None


def test_a_process_that_cannot_run_a_stream_is_a_part_while_another_one_runs_it(db: Database, stream_id: int) -> None:
    report(db, stream_id, "a", of("stopped", reason="no such model"))
    assert states(db) == [("stream", "stopped", T0, "no such model")]
    assert judge(db).state is HealthState.CRITICAL
    report(db, stream_id, "b", of("running"))
    hold_lease(db, "b")
    assert states(db) == [("stream", "running", T0, None), ("replica a", "stopped", T0, "no such model")]
    assert (judge(db).state, judge(db).reason) == (HealthState.WARNING, "a: no such model")


def test_late_and_stalled_streams_run_and_a_stopped_incident_is_a_part_until_it_resolves(
    db: Database, stream_id: int
) -> None:
    report(db, stream_id, "a", of("running"))
    hold_lease(db)
    open_incident(db, stream_id, "stalled")
    assert judge(db).state is HealthState.WARNING
    assert states(db) == [("stream", "stalled", T0 + SECOND, "why")]
    with db.write() as conn:
        conn.execute(sa.update(incidents).values(kind="stopped"))
    assert states(db) == [("stream", "running", T0, None), ("incident 5", "stopped", T0 + SECOND, "why")]


def test_incidents_of_the_input_are_parts_and_findings_are_not(db: Database, stream_id: int) -> None:
    report(db, stream_id, "a", of("running"))
    hold_lease(db)
    open_incident(db, stream_id, "spike")
    assert (judge(db).state, len(states(db))) == (HealthState.WARNING, 1)
    for kind in ("silence", "gap", "dead_letters"):
        with db.write() as conn:
            conn.execute(sa.update(incidents).values(kind=kind))
        assert states(db)[1:] == [("incident 5", kind, T0 + SECOND, "why")]
        assert judge(db).first_fault is None


def test_expired_reports_are_ignored_and_an_ended_stream_is_well(db: Database, stream_id: int) -> None:
    report(db, stream_id, "a", of("running"))
    with db.write() as conn:
        conn.execute(sa.update(health_reports).values(reported_at_us=db.now_us(conn) - 16 * SECOND))
    assert states(db)[0][1] == "not_running"
    assert judge(db).reason == "a has reported nothing for 16 s"
    with db.write() as conn:
        conn.execute(sa.update(positions).values(idle_until_us=FOREVER_US))
    assert states(db)[0][1] == "ended"
    assert read_health(db)[0].is_well
    assert judge(db).state is HealthState.ENDED


def test_a_report_and_a_lease_of_the_future_prove_nothing_after_the_clock_was_set_back(
    db: Database, stream_id: int
) -> None:
    report(db, stream_id, "a", of("running"))
    hold_lease(db)
    assert judge(db).first_fault is None
    with db.write() as conn:
        conn.execute(sa.update(leases).values(expires_at_us=db.now_us(conn) + 3_600 * SECOND))
    assert judge(db).reason == NO_LEASE
    with db.write() as conn:
        conn.execute(sa.update(health_reports).values(reported_at_us=db.now_us(conn) + 3_600 * SECOND))
    assert states(db)[0][1] == "not_running"
    assert judge(db).reason == "the clock of the database was set back: the last report of a is 60 min ahead"
    report(db, stream_id, "a", of("running"))
    hold_lease(db)
    assert judge(db).first_fault is None, "the next report is from after the change"


def test_a_partition_that_no_reporting_process_has_claimed_is_named(db: Database, stream_id: int) -> None:
    report(db, stream_id, "a", of("running"))
    hold_lease(db)
    with db.write() as conn:
        conn.execute(sa.update(positions).values(owner="a process that is gone"))
    name = f"partition {partition()}"
    assert states(db)[1] == (name, "unclaimed", None, UNCLAIMED)
    assert (judge(db).state, judge(db).reason) == (HealthState.UNKNOWN, f"{name}: {UNCLAIMED}")


def test_the_lag_of_all_processes_is_part_of_the_proof(db: Database, stream_id: int) -> None:
    report(db, stream_id, "a", HealthReport(component="stream", state="running", since_us=T0, lag_events=5))
    report(
        db, stream_id, "b", HealthReport(component="stream", state="running", since_us=T0, lag_events=7, waiting_s=2)
    )
    hold_lease(db)
    proof = judge(db).proof
    assert (proof.lag_events, proof.waiting_s, proof.lease_holder) == (12, 2.0, "a:1")
    assert proof.report_age_s is not None
    assert proof.lease_renewed_s is not None
    assert max(proof.report_age_s, proof.lease_renewed_s) < 60


def test_held_partitions_are_parts_without_a_problem_and_open_the_incident_when_they_are_stalled(
    db: Database, stream_id: int
) -> None:
    held_us = db.now_us() - 400 * SECOND
    supervisor = _Supervisor(WaitingPartition(partition=partition(), since_s=-400.0, reason="lead: it is ahead"))
    hold_lease(db)
    watch = HealthWatch(db, [(supervisor, RULE)], replica="a", clock=lambda: 0.0)  # type: ignore[list-item]
    watch.check()
    assert watch.judged is not None
    assert watch.judged.streams["payments"].first_fault is not None
    parts = {row.component: row for row in read_health(db)}
    assert parts["stream"].state == "stalled"
    held = parts[f"partition {partition()}"]
    assert (held.state, held.is_well, held.reason) == ("held", True, "lead: it is ahead")
    assert held.since_us is not None
    assert abs(held.since_us - held_us) < 60 * SECOND
    supervisor.waiting = ()
    HealthWatch(db, [(supervisor, RULE)], replica="b", clock=lambda: 0.0).check()  # type: ignore[list-item]
    assert parts["stream"].state == "stalled", "the process a still reports the partition"
    watch.check()
    assert states(db)[0][1] == "running"


class _Supervisor:
    """A running stream with waiting partitions."""

    name = "payments"

    def __init__(self, *waiting: WaitingPartition) -> None:
        self.waiting = waiting

    def condition(self) -> StreamCondition:
        return StreamCondition(state="running", since_s=-1000.0, has_recovered=True, waiting=self.waiting)
