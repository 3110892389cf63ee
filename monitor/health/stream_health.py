"""The state of a stream from stored rows and the time: page, API, `status --check`, `/readyz` and heartbeats share it.

A stream is well only if that is proven: a process has reported it within `HEALTH_REPORT_TTL_S`, and the lease on the
control plane is held by a process that reports. Without a proof the state is unknown, with the reason. Each process
judges its own threads and outages (`monitor.daemon.stream_supervisor`) and reports them at the next second.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from config.time_format import format_rough_duration
from storage.control.health import HELD_STATE, STREAM_COMPONENT
from storage.database.tables import CONTROL_LEASE_TTL_S, HEALTH_CLOCK_TOLERANCE_S, HEALTH_REPORT_TTL_S
from storage.database.views import NO_LEASE, NO_REPORT, UNCLAIMED
from storage.queries.health import HealthFacts, OpenIncidentFacts, ReportFacts, StreamHealthFacts

RUNNING_STATES = frozenset({"running", "warming_up"})

MONITOR_KINDS = frozenset({"stopped", "stalled"})
"""Kinds of incidents that say that Outrider itself does not make progress with a stream."""

INPUT_KINDS = frozenset({"silence", "gap", "dead_letters", "late"})
"""Kinds of incidents that say that a stream receives no events, or late ones, has lost some, or cannot decode them."""


class HealthState(StrEnum):
    """The state of a stream. The order is that of a page: the state that needs a person most comes first."""

    CRITICAL = "critical"
    UNKNOWN = "unknown"
    WARNING = "warning"
    LEARNING = "learning"
    ENDED = "ended"
    WELL = "well"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthProblem:
    """A part of a stream that is not well.

    Attributes:
        component: The part, as in the view `health`.
        state: Its state, as in the view `health`; the kind of an incident.
        level: `critical`, `warning` or `unknown`.
        since_us: Time since which the state holds; event time of an incident; None if unknown.
        reason: The reason in words.
        is_monitor: Whether Outrider does not do its work; False for findings about the events.
        is_input: Whether the stream receives no events, or late ones, has lost some, or cannot decode them.
        incident_id: The open incident, if it is one.
    """

    component: str
    state: str
    level: HealthState
    since_us: int | None
    reason: str
    is_monitor: bool = False
    is_input: bool = False
    incident_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthProof:
    """The times that prove the state of a stream, on the database's clock, and their ages in seconds at `now`.

    Attributes:
        reported_us: The newest report that is fresh; None without one.
        report_age_s: Its age. The state is unknown when it exceeds `HEALTH_REPORT_TTL_S`.
        lease_holder: The process that holds the lease on the control plane; None without one.
        lease_renewed_s: Seconds since the lease was last renewed, if it has the usual duration.
        last_commit_us: Time of the last commit.
        last_commit_age_s: Its age.
        lag_events: Offsets that are not stored yet, over all processes; None if it is unknown.
        waiting_s: Seconds that the oldest waiting record has waited; None if it is unknown.
        last_event_us: The latest stored event time.
        sealed_until_us: Event time before which all windows are sealed.
    """

    reported_us: int | None = None
    report_age_s: float | None = None
    lease_holder: str | None = None
    lease_renewed_s: float | None = None
    last_commit_us: int | None = None
    last_commit_age_s: float | None = None
    lag_events: int | None = None
    waiting_s: float | None = None
    last_event_us: int | None = None
    sealed_until_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHealth:
    """The health of a stream at `now_us`.

    Attributes:
        stream: Name of the stream.
        now_us: Time of the judgement, on the database's clock.
        state: The state; the worst of the problems, if there is one.
        since_us: Time since which the state holds; None if it is unknown.
        reason: The reason in words; None for a stream that is well.
        problems: All problems, the worst first.
        proof: The times that prove the state.
        learned_share: Share of the events of the warm-up that were read, 0 to 1; None without a warm-up.
    """

    stream: str
    now_us: int
    state: HealthState
    since_us: int | None
    reason: str | None
    problems: Sequence[HealthProblem]
    proof: HealthProof
    learned_share: float | None = None

    @property
    def first_fault(self) -> HealthProblem | None:
        """Return the worst reason to think that Outrider does not do its work, apart from findings in the events."""
        return next((each for each in self.problems if each.is_monitor), None)

    @property
    def first_obstacle(self) -> HealthProblem | None:
        """Return the worst problem that keeps the stream from making progress: a fault, or the lack of its events."""
        return next((each for each in self.problems if each.is_monitor or each.is_input), None)


def judge_streams(facts: HealthFacts) -> dict[str, StreamHealth]:
    """Return the health of all streams of the facts, by name."""
    return {name: judge_stream(each, facts.now_us) for name, each in facts.streams.items()}


def judge_stream(facts: StreamHealthFacts, now_us: int) -> StreamHealth:
    """Return the health of a stream.

    Args:
        facts: The stored rows.
        now_us: The time, on the database's clock.
    """
    fresh = [each for each in facts.reports if is_fresh(each.reported_at_us, now_us)]
    proof = _build_proof(facts, fresh, now_us)
    of_stream = _best_first(each for each in fresh if each.component == STREAM_COMPONENT)
    best = of_stream[0] if of_stream else None
    if facts.is_ended and (best is None or best.state in RUNNING_STATES):
        return StreamHealth(
            stream=facts.stream,
            now_us=now_us,
            state=HealthState.ENDED,
            since_us=facts.last_commit_us,
            reason="the source has ended and all its records are stored",
            problems=_incident_problems(facts.incidents),
            proof=proof,
        )
    problems = [
        *_unproven(facts, best, proof, now_us),
        *_process_problems(of_stream),
        *_part_problems(fresh),
        *_unclaimed_partitions(facts.owners, of_stream),
        *_incident_problems(facts.incidents),
        *_job_problems(facts.failing_jobs),
    ]
    problems.sort(key=lambda each: _LEVELS.index(each.level))
    state, since_us, reason = _own_state(facts, best)
    if problems:
        worst = problems[0]
        state, since_us, reason = worst.level, worst.since_us, worst.reason
    return StreamHealth(
        stream=facts.stream,
        now_us=now_us,
        state=state,
        since_us=since_us,
        reason=reason,
        problems=problems,
        proof=proof,
        learned_share=_learned_share(facts),
    )


def is_fresh(reported_at_us: int, now_us: int) -> bool:
    """Return whether a report proves the present state: it is recent, and not from before the clock was set back."""
    age_us = now_us - reported_at_us
    return -HEALTH_CLOCK_TOLERANCE_S * 1_000_000 <= age_us < HEALTH_REPORT_TTL_S * 1_000_000


_LEVELS = tuple(HealthState)
_PLACES: Mapping[str, int] = {"running": 0, "warming_up": 1}


def _best_first(reports: Iterable[ReportFacts]) -> list[ReportFacts]:
    """Return the reports, those of the process that does best first: a stream has its state."""
    return sorted(reports, key=lambda each: (_PLACES.get(each.state, 2), each.since_us, each.replica))


def _build_proof(facts: StreamHealthFacts, fresh: Sequence[ReportFacts], now_us: int) -> HealthProof:
    reported_us = max((each.reported_at_us for each in fresh), default=None)
    own = [each for each in fresh if each.component == STREAM_COMPONENT]
    lags = [each.lag_events for each in own if each.lag_events is not None]
    waits = [each.waiting_s for each in own if each.waiting_s is not None]
    is_held = _is_lease_valid(facts, now_us)
    return HealthProof(
        reported_us=reported_us,
        report_age_s=_age_s(reported_us, now_us),
        lease_holder=facts.lease_holder if is_held else None,
        lease_renewed_s=_age_s((facts.lease_expires_us or 0) - CONTROL_LEASE_TTL_S * 1_000_000, now_us)
        if is_held
        else None,
        last_commit_us=facts.last_commit_us,
        last_commit_age_s=_age_s(facts.last_commit_us, now_us),
        lag_events=sum(lags) if lags else None,
        waiting_s=max(waits, default=None),
        last_event_us=facts.last_event_us,
        sealed_until_us=facts.sealed_until_us,
    )


def _age_s(at_us: int | None, now_us: int) -> float | None:
    return None if at_us is None else max(0.0, (now_us - at_us) / 1e6)


def _is_lease_valid(facts: StreamHealthFacts, now_us: int) -> bool:
    """Return whether the lease is in force; one that ends much later was taken before the clock was set back."""
    left_us = (facts.lease_expires_us or 0) - now_us
    return facts.lease_holder is not None and 0 < left_us <= 2 * CONTROL_LEASE_TTL_S * 1_000_000


def _unproven(
    facts: StreamHealthFacts, best: ReportFacts | None, proof: HealthProof, now_us: int
) -> Iterable[HealthProblem]:
    """Yield what is missing in the proof that the stream runs."""
    holder = proof.lease_holder
    if best is None:
        yield _unknown("not_running", *_explain_absence(facts, holder, now_us))
    elif best.state == "starting":
        yield _unknown("starting", "the stream starts", best.since_us)
    elif best.state == "running" and not any(
        each.component == STREAM_COMPONENT
        and is_fresh(each.reported_at_us, now_us)
        and holder is not None
        and holder.startswith(f"{each.replica}:")
        for each in facts.reports
    ):
        yield _unknown("unknown", NO_LEASE)


def _unknown(state: str, reason: str, since_us: int | None = None) -> HealthProblem:
    return HealthProblem(
        component=STREAM_COMPONENT,
        state=state,
        level=HealthState.UNKNOWN,
        since_us=since_us,
        reason=reason,
        is_monitor=True,
    )


def _explain_absence(facts: StreamHealthFacts, holder: str | None, now_us: int) -> tuple[str, int | None]:
    """Return why there is no fresh report, and since when."""
    own = [each for each in facts.reports if each.component == STREAM_COMPONENT]
    if not own:
        if holder is not None:
            return NO_REPORT, None
        return "no process runs the stream", facts.last_commit_us
    newest = max(own, key=lambda each: each.reported_at_us)
    age_us = now_us - newest.reported_at_us
    if age_us < 0:
        ahead = format_rough_duration(-age_us / 1e6)
        return f"the clock of the database was set back: the last report of {newest.replica} is {ahead} ahead", None
    return f"{newest.replica} has reported nothing for {format_rough_duration(age_us / 1e6)}", newest.reported_at_us


def _process_problems(reports: Sequence[ReportFacts]) -> Iterable[HealthProblem]:
    """Yield the processes that do not run the stream; only a warning while another one runs it."""
    for place, each in enumerate(reports):
        if each.state in RUNNING_STATES or each.state == "starting":
            continue
        is_best = place == 0
        reason = each.reason or each.state.replace("_", " ")
        yield HealthProblem(
            component=STREAM_COMPONENT if is_best else f"replica {each.replica}",
            state=each.state,
            level=HealthState.CRITICAL if is_best else HealthState.WARNING,
            since_us=each.since_us,
            reason=reason if is_best else f"{each.replica}: {reason}",
            is_monitor=True,
        )


def _part_problems(fresh: Sequence[ReportFacts]) -> Iterable[HealthProblem]:
    """Yield the parts that a process reports: partitions that do not move, a broker that is away, a stuck thread."""
    for each in fresh:
        if each.component == STREAM_COMPONENT:
            continue
        what = f"{each.component} is {each.state}"
        yield HealthProblem(
            component=each.component,
            state=each.state,
            level=HealthState.WARNING if each.state == HELD_STATE else HealthState.CRITICAL,
            since_us=each.since_us,
            reason=f"{what}: {each.reason}" if each.reason else what,
            is_monitor=True,
        )


def _unclaimed_partitions(owners: Mapping[str, str | None], reports: Sequence[ReportFacts]) -> Iterable[HealthProblem]:
    """Yield the partitions of a running stream that no process reads: another program may be in the consumer group."""
    if not any(each.state == "running" for each in reports):
        return
    for partition, owner in owners.items():
        if owner is None or not any(owner.startswith(f"{each.replica}:") for each in reports):
            yield HealthProblem(
                component=f"partition {partition}",
                state="unclaimed",
                level=HealthState.UNKNOWN,
                since_us=None,
                reason=f"partition {partition}: {UNCLAIMED}",
                is_monitor=True,
            )


def _incident_problems(incidents: Sequence[OpenIncidentFacts]) -> list[HealthProblem]:
    """Return the open incidents. Of a silent stream nothing is known but the silence."""
    return [
        HealthProblem(
            component=f"incident {each.id}",
            state=each.kind,
            level=HealthState.UNKNOWN if each.kind == "silence" else HealthState(each.severity),
            since_us=each.opened_at_us,
            reason=each.summary if each.acknowledged_by is None else f"{each.summary} (acknowledged)",
            is_monitor=each.kind in MONITOR_KINDS,
            is_input=each.kind in INPUT_KINDS,
            incident_id=each.id,
        )
        for each in incidents
    ]


def _job_problems(failing: Mapping[str, str]) -> Iterable[HealthProblem]:
    for name, error in failing.items():
        yield HealthProblem(
            component=f"job {name}",
            state="failing",
            level=HealthState.WARNING,
            since_us=None,
            reason=f"the job {name} fails: {error}",
            is_monitor=True,
        )


def _own_state(facts: StreamHealthFacts, best: ReportFacts | None) -> tuple[HealthState, int | None, str | None]:
    """Return state, time and reason of a stream without problems."""
    since_us = None if best is None else best.since_us
    if facts.has_model and (best is None or best.state == "running"):
        return HealthState.WELL, since_us, None
    progress = facts.warm_up
    if progress is None or not progress.wanted:
        return HealthState.LEARNING, since_us, "learning what is usual"
    return HealthState.LEARNING, since_us, f"learning from {progress.events:,} of {progress.wanted:,} events"


def _learned_share(facts: StreamHealthFacts) -> float | None:
    progress = facts.warm_up
    return None if progress is None or not progress.wanted else min(1.0, progress.events / progress.wanted)
