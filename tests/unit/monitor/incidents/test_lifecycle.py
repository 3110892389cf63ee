"""The lifecycle of an incident: one open at a time, opened before resolved, repeated after an interval."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.incidents.lifecycle import (
    Finding,
    Interval,
    Kind,
    LifecyclePolicy,
    Severity,
    TransitionType,
    advance_incident,
    apply_quiet_windows,
)
from storage.control.records import Incident, Transition

MINUTE = 60_000_000
POLICY = LifecyclePolicy(resolve_after=3, repeat_interval_us=10 * MINUTE)
SEVERITY_ORDER = {"warning": 0, "critical": 1}


def window(n: int) -> Interval:
    return Interval(start_us=n * MINUTE, end_us=(n + 1) * MINUTE)


def finding(severity: Severity = Severity.WARNING, n: int = 0) -> Finding:
    return Finding(kind=Kind.SPIKE, severity=severity, summary=f"finding {n}", details={"window": n})


def step(incident: Incident | None, found: Finding | None, n: int, policy: LifecyclePolicy = POLICY) -> Incident | None:
    return advance_incident(incident, found, window(n), policy)


def opened_incident(at: int = 0, severity: Severity = Severity.WARNING) -> Incident:
    incident = step(None, finding(severity), at)
    assert incident is not None
    return incident.with_id(1)


def transition_type(incident: Incident | None) -> str | None:
    return None if incident is None or incident.transition is None else incident.transition.type


@dataclass(frozen=True)
class TransitionStep:
    """A transition and the incident before it."""

    before: Incident | None
    transition: Transition


FOUND = st.sampled_from([None, None, Severity.WARNING, Severity.CRITICAL])
COURSE = st.lists(st.tuples(FOUND, st.integers(0, 5)), max_size=60)
POLICIES = st.builds(
    LifecyclePolicy,
    resolve_after=st.integers(1, 5),
    repeat_interval_us=st.sampled_from([1, 3, 10]).map(lambda n: n * MINUTE),
)


def simulate_incident(
    course: list[tuple[Severity | None, int]], policy: LifecyclePolicy
) -> tuple[list[TransitionStep], Incident | None]:
    """Judge windows, each with a finding or None, and a number of windows without events before it."""
    steps: list[TransitionStep] = []
    incident: Incident | None = None
    n, last_end = 0, 0
    for severity, quiet in course:
        n += quiet
        if incident is not None and last_end:
            passed = apply_quiet_windows(incident, quiet, MINUTE, last_end, policy)
            steps += [TransitionStep(incident, passed.transition)] if passed.transition else []
            incident = passed if passed.status == "open" else None
        after = step(incident, None if severity is None else finding(severity, n), n, policy)
        if after is not None and after.transition is not None:
            steps.append(TransitionStep(incident, after.transition))
        incident = after if after is not None and after.status == "open" else None
        last_end, n = (n + 1) * MINUTE, n + 1
    return steps, incident


@given(COURSE, POLICIES)
def test_opened_and_resolved_alternate(course: list[tuple[Severity | None, int]], policy: LifecyclePolicy) -> None:
    steps, incident = simulate_incident(course, policy)
    is_open = False
    for each in steps:
        change = each.transition.type
        assert (change == TransitionType.OPENED) is not is_open
        is_open = change != TransitionType.RESOLVED
    assert is_open == (incident is not None)


@given(COURSE, POLICIES)
def test_transitions_are_ordered_and_unique_by_type_and_window(
    course: list[tuple[Severity | None, int]], policy: LifecyclePolicy
) -> None:
    steps, _ = simulate_incident(course, policy)
    ends = [each.transition.at_us for each in steps]
    assert ends == sorted(ends)
    keys = [(each.transition.type, each.transition.window_start_us) for each in steps]
    assert len(keys) == len(set(keys))


@pytest.mark.slow
@given(COURSE, POLICIES)
def test_incident_repeats_after_the_interval_and_escalates_upwards_only(
    course: list[tuple[Severity | None, int]], policy: LifecyclePolicy
) -> None:
    for each in simulate_incident(course, policy)[0]:
        change = each.transition.type
        if change == TransitionType.REPEATED:
            assert each.before is not None
            assert each.transition.at_us - each.before.last_told_us >= policy.repeat_interval_us
        if change == TransitionType.ESCALATED:
            assert each.before is not None
            assert SEVERITY_ORDER[each.transition.severity] > SEVERITY_ORDER[each.before.severity]


@given(COURSE, POLICIES)
def test_incident_resolves_after_consecutive_clean_windows(
    course: list[tuple[Severity | None, int]], policy: LifecyclePolicy
) -> None:
    fired_at = {}
    n = 0
    for severity, quiet in course:
        n += quiet
        fired_at[n] = severity is not None
        n += 1
    for each in simulate_incident(course, policy)[0]:
        if each.transition.type == TransitionType.RESOLVED:
            last = each.transition.window_start_us // MINUTE
            run = [fired_at.get(i, False) for i in range(last - policy.resolve_after, last + 1)]
            assert run == [True] + [False] * policy.resolve_after


@given(COURSE, POLICIES)
def test_severity_of_an_open_incident_never_decreases(
    course: list[tuple[Severity | None, int]], policy: LifecyclePolicy
) -> None:
    before: Incident | None = None
    for i in range(len(course) + 1):
        incident = simulate_incident(course[:i], policy)[1]
        if incident and before and incident.window_start_us == before.window_start_us:
            assert SEVERITY_ORDER[incident.severity] >= SEVERITY_ORDER[before.severity]
        before = incident


@given(st.integers(0, 12), st.integers(0, 2))
def test_quiet_windows_count_like_clean_windows(quiet: int, clean: int) -> None:
    incident = opened_incident()
    for n in range(clean):
        following = step(incident, None, n + 1)
        assert following is not None
        incident = following
    by_one: Incident | None = incident
    for n in range(quiet):
        if by_one is None or by_one.status != "open":
            break
        by_one = step(by_one, None, clean + 1 + n)
    assert apply_quiet_windows(incident, quiet, MINUTE, (clean + 1) * MINUTE, POLICY) == by_one


def test_no_finding_and_no_incident_changes_nothing() -> None:
    assert step(None, None, 5) is None


def test_incident_opens_at_the_end_of_the_first_firing_window() -> None:
    incident = step(None, finding(Severity.CRITICAL, 7), 7)
    assert incident is not None
    assert incident.transition == Transition(
        type="opened",
        severity="critical",
        window_start_us=7 * MINUTE,
        at_us=8 * MINUTE,
        summary="finding 7",
        details={"window": 7},
    )
    assert (incident.kind, incident.opened_at_us, incident.windows_fired) == ("spike", 8 * MINUTE, 1)
    assert incident.details == {"opened": {"window": 7}}


def test_less_severe_finding_keeps_the_severity_without_a_transition() -> None:
    incident = step(opened_incident(severity=Severity.CRITICAL), finding(Severity.WARNING), 1)
    assert incident is not None
    assert incident.transition is None
    assert (incident.severity, incident.windows_fired) == ("critical", 2)


def test_escalation_restarts_the_repeat_interval() -> None:
    escalated = step(opened_incident(), finding(Severity.CRITICAL), 9)
    assert transition_type(escalated) == "escalated"
    assert transition_type(step(escalated, finding(Severity.CRITICAL), 18)) is None
    assert transition_type(step(escalated, finding(Severity.CRITICAL), 19)) == "repeated"


def test_finding_resets_the_count_of_clean_windows() -> None:
    incident: Incident | None = opened_incident()
    types = []
    for n, found in enumerate([None, None, finding(), None, None, None], start=1):
        incident = step(incident, found, n)
        types.append(transition_type(incident))
    assert types == [None, None, None, None, None, "resolved"]


def test_resolution_contains_duration_and_number_of_firings() -> None:
    incident = step(opened_incident(), finding(), 1)
    assert incident is not None
    resolved = apply_quiet_windows(incident, 100, MINUTE, 2 * MINUTE, POLICY)
    transition = resolved.transition
    assert transition is not None
    assert (transition.window_start_us, transition.at_us) == (4 * MINUTE, 5 * MINUTE)
    assert transition.summary == "resolved after 3 clean windows, 4.0 min after it opened"
    assert transition.details == {"clean_windows": 3, "windows_fired": 2}
    assert (resolved.status, resolved.resolved_at_us, resolved.clean_windows) == ("resolved", 5 * MINUTE, 3)
    assert resolved.details == {"opened": {"window": 0}, "resolved": transition.details}


@pytest.mark.parametrize("quiet", [0, 1, 2])
def test_too_few_quiet_windows_do_not_resolve(quiet: int) -> None:
    incident = apply_quiet_windows(opened_incident(), quiet, MINUTE, MINUTE, POLICY)
    assert incident.transition is None
    assert (incident.status, incident.clean_windows) == ("open", quiet)
