"""The lifecycle of an incident: one open at a time, opened before resolved, repeated after an interval."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.incidents.lifecycle import (
    Finding,
    IncidentStep,
    Interval,
    Kind,
    LifecyclePolicy,
    OpenIncident,
    Severity,
    Transition,
    TransitionType,
    advance_incident,
    apply_quiet_windows,
)

MINUTE = 60_000_000
POLICY = LifecyclePolicy(resolve_after=3, repeat_interval_us=10 * MINUTE)
LOUDNESS = {Severity.WARNING: 0, Severity.CRITICAL: 1}


def window(n: int) -> Interval:
    return Interval(start_us=n * MINUTE, end_us=(n + 1) * MINUTE)


def finding(severity: Severity = Severity.WARNING, n: int = 0) -> Finding:
    return Finding(kind=Kind.SPIKE, severity=severity, summary=f"finding {n}", details={"window": n})


def step(
    incident: OpenIncident | None, found: Finding | None, n: int, policy: LifecyclePolicy = POLICY
) -> IncidentStep:
    return advance_incident(Kind.SPIKE, incident, found, window(n), policy)


def opened_incident(at: int = 0, severity: Severity = Severity.WARNING) -> OpenIncident:
    incident = step(None, finding(severity), at).incident
    assert incident is not None
    return incident


@dataclass(frozen=True)
class TransitionStep:
    """A transition and the incident before it."""

    before: OpenIncident | None
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
) -> tuple[list[TransitionStep], OpenIncident | None]:
    """Judge windows, each with a finding or None, and a number of windows without events before it."""
    steps: list[TransitionStep] = []
    incident: OpenIncident | None = None
    n, last_end = 0, 0
    for severity, quiet in course:
        n += quiet
        if incident is not None and last_end:
            passed = apply_quiet_windows(incident, quiet, MINUTE, last_end, policy)
            steps += [TransitionStep(incident, passed.transition)] if passed.transition else []
            incident = passed.incident
        after = step(incident, None if severity is None else finding(severity, n), n, policy)
        steps += [TransitionStep(incident, after.transition)] if after.transition else []
        incident, last_end, n = after.incident, (n + 1) * MINUTE, n + 1
    return steps, incident


@given(COURSE, POLICIES)
def test_opened_and_resolved_alternate(course: list[tuple[Severity | None, int]], policy: LifecyclePolicy) -> None:
    steps, incident = simulate_incident(course, policy)
    is_open = False
    for each in steps:
        change = each.transition.type
        assert (change is TransitionType.OPENED) is not is_open
        is_open = change is not TransitionType.RESOLVED
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


@given(COURSE, POLICIES)
def test_incident_repeats_after_the_interval_and_escalates_upwards_only(
    course: list[tuple[Severity | None, int]], policy: LifecyclePolicy
) -> None:
    for each in simulate_incident(course, policy)[0]:
        change = each.transition.type
        if change is TransitionType.REPEATED:
            assert each.before is not None
            assert each.transition.at_us - each.before.last_told_us >= policy.repeat_interval_us
        if change is TransitionType.ESCALATED:
            assert each.before is not None
            assert LOUDNESS[each.transition.severity] > LOUDNESS[each.before.severity]


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
        if each.transition.type is TransitionType.RESOLVED:
            last = each.transition.window_start_us // MINUTE
            run = [fired_at.get(i, False) for i in range(last - policy.resolve_after, last + 1)]
            assert run == [True] + [False] * policy.resolve_after


@given(COURSE, POLICIES)
def test_severity_of_an_open_incident_never_decreases(
    course: list[tuple[Severity | None, int]], policy: LifecyclePolicy
) -> None:
    before: OpenIncident | None = None
    for i in range(len(course) + 1):
        incident = simulate_incident(course[:i], policy)[1]
        if incident and before and incident.window_start_us == before.window_start_us:
            assert LOUDNESS[incident.severity] >= LOUDNESS[before.severity]
        before = incident


@given(st.integers(0, 12), st.integers(0, 2))
def test_quiet_windows_count_like_clean_windows(quiet: int, clean: int) -> None:
    incident = opened_incident()
    for n in range(clean):
        following = step(incident, None, n + 1).incident
        assert following is not None
        incident = following
    by_one: IncidentStep = IncidentStep(incident=incident, transition=None)
    for n in range(quiet):
        if by_one.incident is None:
            break
        by_one = step(by_one.incident, None, clean + 1 + n)
    assert apply_quiet_windows(incident, quiet, MINUTE, (clean + 1) * MINUTE, POLICY) == by_one


def test_no_finding_and_no_incident_changes_nothing() -> None:
    assert step(None, None, 5) == IncidentStep(incident=None, transition=None)


def test_incident_opens_at_the_end_of_the_first_firing_window() -> None:
    after = step(None, finding(Severity.CRITICAL, 7), 7)
    assert after.transition == Transition(
        type=TransitionType.OPENED,
        kind=Kind.SPIKE,
        severity=Severity.CRITICAL,
        window_start_us=7 * MINUTE,
        at_us=8 * MINUTE,
        summary="finding 7",
        details={"window": 7},
    )
    assert after.incident is not None
    assert (after.incident.opened_at_us, after.incident.windows_fired) == (8 * MINUTE, 1)


def test_less_severe_finding_keeps_the_severity_without_a_transition() -> None:
    after = step(opened_incident(severity=Severity.CRITICAL), finding(Severity.WARNING), 1)
    assert after.transition is None
    assert after.incident is not None
    assert (after.incident.severity, after.incident.windows_fired) == (Severity.CRITICAL, 2)


def test_escalation_restarts_the_repeat_interval() -> None:
    louder = step(opened_incident(), finding(Severity.CRITICAL), 9)
    assert louder.transition is not None
    assert louder.transition.type is TransitionType.ESCALATED
    assert step(louder.incident, finding(Severity.CRITICAL), 18).transition is None
    again = step(louder.incident, finding(Severity.CRITICAL), 19).transition
    assert again is not None
    assert again.type is TransitionType.REPEATED


def test_finding_resets_the_count_of_clean_windows() -> None:
    incident: OpenIncident | None = opened_incident()
    changes = []
    for n, found in enumerate([None, None, finding(), None, None, None], start=1):
        after = step(incident, found, n)
        incident = after.incident
        changes.append(after.transition.type if after.transition else None)
    assert changes == [None, None, None, None, None, TransitionType.RESOLVED]


def test_resolution_contains_duration_and_number_of_firings() -> None:
    incident = step(opened_incident(), finding(), 1).incident
    assert incident is not None
    resolved = apply_quiet_windows(incident, 100, MINUTE, 2 * MINUTE, POLICY).transition
    assert resolved is not None
    assert (resolved.window_start_us, resolved.at_us) == (4 * MINUTE, 5 * MINUTE)
    assert resolved.summary == "resolved after 3 clean windows, 4.0 min after it opened"
    assert resolved.details == {"clean_windows": 3, "windows_fired": 2}


@pytest.mark.parametrize("quiet", [0, 1, 2])
def test_too_few_quiet_windows_do_not_resolve(quiet: int) -> None:
    passed = apply_quiet_windows(opened_incident(), quiet, MINUTE, MINUTE, POLICY)
    assert passed.transition is None
    assert passed.incident is not None
    assert passed.incident.clean_windows == quiet
