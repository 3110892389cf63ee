"""The rows of the overview: streams worst first, incidents, and the proofs of their states. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from config.time_format import HOUR_US, SECOND_US
from monitor.health.stream_health import HealthProblem, HealthState, StreamHealth
from monitor.incidents.lifecycle import Kind
from monitor.incidents.verbs import WALL_CLOCK_KINDS
from monitor.server.pages.bars import BAR_US, BARS, Bar, draw_bars
from monitor.server.pages.formats import (
    ABSENT,
    clock,
    duration,
    iso,
    number,
    plural,
    share,
    shorten_times,
    significant,
    words,
)
from monitor.server.pages.panels import PanelTable
from storage.database.tables import CONTROL_LEASE_TTL_S, HEALTH_REPORT_TTL_S
from storage.queries.rollups import BarSums

_SIGNS = {HealthState.ENDED: "resolved"}
_BARS_OF_AN_HOUR = HOUR_US // BAR_US
_BARS_OF_A_SPAN = 3 * _BARS_OF_AN_HOUR
MAX_REASON = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRow:
    """A stream: its state as sign and words, the reason, and its last 24 hours."""

    name: str
    sign: str
    state: str
    reason: str
    incident_id: int | None
    bars: Markup
    outliers: str
    expected: str
    rate: str
    lag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A proof of the states, the age at which it was seen, and the age at which the states turn grey."""

    name: str
    seen: str
    grey_after: str
    is_missing: bool


def sort_streams(health: Mapping[str, StreamHealth]) -> list[StreamHealth]:
    """Return the streams, the state that needs a person most first."""
    order = tuple(HealthState)
    return sorted(health.values(), key=lambda each: (order.index(each.state), each.stream))


def sort_problems(health: StreamHealth) -> list[HealthProblem]:
    """Return the problems of a stream, the one that needs a person most first."""
    order = tuple(HealthState)
    return sorted(health.problems, key=lambda each: order.index(each.level))


def build_stream_row(health: StreamHealth, bars: Sequence[Bar], rollups: Sequence[BarSums], until_us: int) -> StreamRow:
    """Return the row of a stream.

    Args:
        health: Its state.
        bars: Its 96 bars.
        rollups: Their roll-ups.
        until_us: End of the last bar.
    """
    sign, state, reason = describe_state(health)
    incident = next((each.incident_id for each in sort_problems(health) if each.incident_id is not None), None)
    known = [bar for bar in bars if bar.outliers is not None]
    return StreamRow(
        name=health.stream,
        sign=sign,
        state=state,
        reason=reason,
        incident_id=incident,
        bars=draw_bars(bars),
        outliers=number(sum(bar.outliers or 0 for bar in known)) if known else ABSENT,
        expected=number(sum(bar.expected for bar in known)) if known else ABSENT,
        rate=_rate(rollups, until_us),
        lag=_lag(health),
    )


def describe_state(health: StreamHealth) -> tuple[str, str, str]:
    """Return the sign of a state, its words with its age, and the reason."""
    first = next(iter(sort_problems(health)), None)
    sign = _SIGNS.get(health.state, health.state.value)
    if health.state is HealthState.ENDED and first is not None:
        sign = first.level.value
    if health.state is HealthState.LEARNING:
        progress = "" if health.learned_share is None else f", {share(health.learned_share)}"
        return sign, f"learning{progress}", health.reason or ""
    if first is None:
        since = "" if health.since_us is None else f"for {duration(max(health.now_us - health.since_us, 0))}"
        reason = since if health.state is HealthState.WELL else health.reason or ""
        return sign, health.state.value, reason
    name = words(first.state) if first.incident_id is not None else first.level.value
    if first.incident_id is None and first.level is not HealthState.UNKNOWN:
        name = words(first.state)
    age = _age(health, first)
    state = f"{name}, {age}" if age else name
    if health.state is HealthState.UNKNOWN and not state.startswith("unknown"):
        state = f"unknown: {state}"
    reason = _shorten(shorten_times(first.reason, beside_us=health.now_us))
    more = len(health.problems) - 1
    if health.state is HealthState.ENDED:
        reason = f"the source has ended; {reason}"
    return sign, state, f"{reason}; and {plural(more, 'further problem')}" if more else reason


def _age(health: StreamHealth, problem: HealthProblem) -> str:
    """Return how long a problem lasts: an incident by the event time that the stream has reached."""
    if problem.since_us is None:
        return ""
    reached_us = health.now_us
    is_event_time = problem.incident_id is not None and problem.state not in {kind.value for kind in WALL_CLOCK_KINDS}
    if is_event_time and health.proof.sealed_until_us is not None and problem.state in set(Kind):
        reached_us = health.proof.sealed_until_us
    return duration(max(reached_us - problem.since_us, 0))


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON].rsplit(' ', 1)[0]} …"


def _rate(rollups: Sequence[BarSums], until_us: int) -> str:
    """Return the events per second of the last hour of event time that has windows."""
    recent = [each for each in rollups if each.start_us >= until_us - _BARS_OF_AN_HOUR * BAR_US and each.windows]
    if not recent:
        return ABSENT
    covered_us = max(each.end_us for each in recent) - min(each.start_us for each in recent)
    return significant(sum(each.events for each in recent) / max(covered_us / SECOND_US, 1.0), 2)


def _lag(health: StreamHealth) -> str:
    if health.proof.waiting_s is not None:
        return duration(health.proof.waiting_s * SECOND_US)
    return ABSENT if health.proof.lag_events is None else f"{health.proof.lag_events:,} events"


def tabulate_spans(bars: Mapping[str, Sequence[Bar]], from_us: int) -> PanelTable:
    """Return the bars of all streams as a table in steps of 3 h: single bars of many streams would be a large page."""
    rows = []
    for name, of_stream in bars.items():
        for i in range(0, len(of_stream), _BARS_OF_A_SPAN):
            known = [bar for bar in of_stream[i : i + _BARS_OF_A_SPAN] if bar.outliers is not None]
            if known:
                counts = (sum(bar.outliers or 0 for bar in known), round(sum(bar.expected for bar in known), 1))
                is_incident = any(bar.is_incident for bar in known)
                rows.append([iso(from_us + i * BAR_US), name, *counts, "yes" if is_incident else None])
    columns = ("3 h from (UTC)", "stream", "outliers", "expected", "incident")
    return PanelTable(columns=columns, rows=rows, caption="in steps of 3 h; CSV has the bars of 15 min")


def tabulate_bars(bars: Mapping[str, Sequence[Bar]], from_us: int) -> PanelTable:
    """Return the bars of all streams as a table."""
    rows = [
        [iso(from_us + i * BAR_US), name, bar.outliers, round(bar.expected, 3), "yes" if bar.is_incident else None]
        for name, of_stream in bars.items()
        for i, bar in enumerate(of_stream)
        if bar.outliers is not None
    ]
    columns = ("15 min from (UTC)", "stream", "outliers", "expected", "incident")
    return PanelTable(columns=columns, rows=rows, caption="bars without windows are left out")


def build_hours(from_us: int) -> list[str]:
    """Return the times below the bars."""
    step = BARS * BAR_US // 4
    return [clock(from_us + i * step) for i in range(5)]


def build_proofs(health: Sequence[StreamHealth]) -> list[Proof]:
    """Return what proves the states, the weakest stream of each."""
    running = [each for each in health if each.state is not HealthState.ENDED]
    holders = {each.proof.lease_holder for each in running if each.proof.lease_holder is not None}
    lease = f"Lease held by {next(iter(holders)).partition('/')[0]}" if len(holders) == 1 else "Leases of the streams"
    return [
        _proof("Report of a daemon", [each.proof.report_age_s for each in running], HEALTH_REPORT_TTL_S),
        _proof(lease, [each.proof.lease_renewed_s for each in running], CONTROL_LEASE_TTL_S),
        _proof("Last commit, slowest stream", [each.proof.last_commit_age_s for each in health], None),
    ]


def _proof(name: str, ages_s: Sequence[float | None], grey_after_s: float | None) -> Proof:
    missing = sum(age is None for age in ages_s)
    known = [age for age in ages_s if age is not None]
    seen = f"{duration(max(known) * SECOND_US)} ago" if known else "none"
    if missing and known:
        seen += f", {missing:,} missing"
    return Proof(
        name=name,
        seen=seen if ages_s else ABSENT,
        grey_after=ABSENT if grey_after_s is None else duration(grey_after_s * SECOND_US),
        is_missing=missing > 0,
    )
