"""A stream is well only while that is proven; each missing proof turns the state to unknown, with its reason."""

from dataclasses import replace
from typing import Any

import pytest

from monitor.health.stream_health import HealthState, judge_stream
from storage.control.warm_up import WarmUpProgress
from storage.database.tables import CONTROL_LEASE_TTL_S, HEALTH_CLOCK_TOLERANCE_S, HEALTH_REPORT_TTL_S
from storage.database.views import NO_LEASE, NO_REPORT, UNCLAIMED
from storage.queries.health import OpenIncidentFacts, ReportFacts, StreamHealthFacts

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND


def report(state: str = "running", *, age_s: float = 1.0, **values: Any) -> ReportFacts:
    plain = ReportFacts(
        replica="host:1:2",
        component="stream",
        state=state,
        since_us=NOW - 60 * SECOND,
        reason=None,
        reported_at_us=NOW - int(age_s * SECOND),
        lag_events=3,
        waiting_s=0.5,
    )
    return replace(plain, **values)


def incident(kind: str, severity: str = "warning", *, acknowledged_by: str | None = None) -> OpenIncidentFacts:
    return OpenIncidentFacts(
        id=7,
        kind=kind,
        severity=severity,
        opened_at_us=NOW - 90 * SECOND,
        summary="163 of 203 outliers",
        acknowledged_by=acknowledged_by,
    )


WELL = StreamHealthFacts(
    stream="payments",
    reports=[report()],
    lease_holder="host:1:2:1",
    lease_expires_us=NOW + 8 * SECOND,
    has_model=True,
    owners={"t[0]": "host:1:2:1"},
    last_commit_us=NOW - 2 * SECOND,
    last_event_us=NOW - 3 * SECOND,
)


def test_a_stream_is_well_with_a_fresh_report_and_a_lease_and_shows_the_ages_of_its_proofs() -> None:
    health = judge_stream(WELL, NOW)
    assert (health.state, health.reason, health.problems) == (HealthState.WELL, None, [])
    assert health.since_us == NOW - 60 * SECOND
    proof = health.proof
    assert (proof.report_age_s, proof.lease_renewed_s, proof.last_commit_age_s) == (1.0, 2.0, 2.0)
    assert (proof.lag_events, proof.waiting_s) == (3, 0.5)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (replace(WELL, reports=[report(age_s=HEALTH_REPORT_TTL_S)]), "host:1:2 has reported nothing for 15 s"),
        (
            replace(WELL, reports=[report(age_s=-HEALTH_CLOCK_TOLERANCE_S - 1)]),
            "the clock of the database was set back: the last report of host:1:2 is 6 s ahead",
        ),
        (replace(WELL, reports=[], lease_holder=None), "no process runs the stream"),
        (replace(WELL, reports=[]), NO_REPORT),
        (replace(WELL, lease_holder=None), NO_LEASE),
        (replace(WELL, lease_expires_us=NOW), NO_LEASE),
        (replace(WELL, lease_expires_us=NOW + 2 * CONTROL_LEASE_TTL_S * SECOND + 1), NO_LEASE),
        (replace(WELL, lease_holder="other:9:9:1"), NO_LEASE),
        (
            replace(WELL, reports=[report(), report(replica="other:9:9", age_s=20)], lease_holder="other:9:9:1"),
            NO_LEASE,
        ),
        (replace(WELL, reports=[report("starting")]), "the stream starts"),
        (
            replace(WELL, owners={"t[0]": "host:1:2:1", "t[1]": None}),
            f"partition t[1]: {UNCLAIMED}",
        ),
    ],
)
def test_without_a_proof_the_state_is_unknown(facts: StreamHealthFacts, reason: str) -> None:
    health = judge_stream(facts, NOW)
    assert (health.state, health.reason) == (HealthState.UNKNOWN, reason)
    assert health.first_fault is not None


@pytest.mark.parametrize(
    ("facts", "state", "reason"),
    [
        (replace(WELL, reports=[report("stopped", reason="no topic")]), HealthState.CRITICAL, "no topic"),
        (replace(WELL, reports=[report("stuck", reason="no round")]), HealthState.CRITICAL, "no round"),
        (
            replace(WELL, reports=[report(), report("stopped", replica="b", reason="no model")]),
            HealthState.WARNING,
            "b: no model",
        ),
        (
            replace(WELL, reports=[report(), report("held", component="partition t[1]", reason="lead: it is ahead")]),
            HealthState.WARNING,
            "partition t[1] is held: lead: it is ahead",
        ),
        (
            replace(WELL, failing_jobs={"silence payments": "full"}),
            HealthState.WARNING,
            "the job silence payments fails: full",
        ),
        (replace(WELL, incidents=[incident("stalled")]), HealthState.WARNING, "163 of 203 outliers"),
    ],
)
def test_a_fault_of_the_monitor_is_named(facts: StreamHealthFacts, state: HealthState, reason: str) -> None:
    health = judge_stream(facts, NOW)
    assert (health.state, health.reason) == (state, reason)
    assert health.first_fault is not None


@pytest.mark.parametrize(
    ("found", "state", "is_obstacle"),
    [
        (incident("spike", "critical"), HealthState.CRITICAL, False),
        (incident("drift"), HealthState.WARNING, False),
        (incident("silence"), HealthState.UNKNOWN, True),
        (incident("gap"), HealthState.WARNING, True),
        (incident("late"), HealthState.WARNING, True),
    ],
)
def test_a_finding_about_the_events_is_no_fault_of_the_monitor(
    found: OpenIncidentFacts, state: HealthState, is_obstacle: bool
) -> None:
    health = judge_stream(replace(WELL, incidents=[found]), NOW)
    assert (health.state, health.first_fault) == (state, None)
    assert (health.first_obstacle is not None) == is_obstacle


def test_the_worst_problem_is_the_state_and_a_missing_proof_hides_no_critical_incident() -> None:
    facts = replace(WELL, lease_holder=None, incidents=[incident("drift"), incident("spike", "critical")])
    health = judge_stream(facts, NOW)
    assert [each.level for each in health.problems] == ["critical", "unknown", "warning"]
    assert health.first_fault == health.problems[1]


def test_an_acknowledged_incident_keeps_its_state_and_says_so() -> None:
    health = judge_stream(replace(WELL, incidents=[incident("drift", acknowledged_by="ops")]), NOW)
    assert (health.state, health.reason) == (HealthState.WARNING, "163 of 203 outliers (acknowledged)")


def test_a_warm_up_is_learning_and_no_fault() -> None:
    progress = WarmUpProgress(events=6_200, wanted=10_000)
    facts = replace(WELL, has_model=False, warm_up=progress, reports=[report("warming_up")])
    health = judge_stream(facts, NOW)
    assert (health.state, health.learned_share, health.first_fault) == (HealthState.LEARNING, 0.62, None)
    assert health.reason == "learning from 6,200 of 10,000 events"


def test_an_ended_source_is_ended_with_and_without_a_process_and_never_well() -> None:
    for facts in (WELL, replace(WELL, reports=[], lease_holder=None)):
        assert judge_stream(replace(facts, is_ended=True), NOW).state is HealthState.ENDED
    failed = replace(WELL, is_ended=True, reports=[report("stopped", reason="no disk")])
    assert judge_stream(failed, NOW).state is HealthState.CRITICAL
