"""The head of a stream's page: its state, its open incidents, and its rate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monitor.health.stream_health import HealthState, StreamHealth, judge_stream
from monitor.server.pages.formats import duration, number, plural, words
from storage.database.engine import Database
from storage.queries.health import OpenIncidentFacts, read_health_facts
from storage.queries.rollups import Rollup, read_windows
from storage.queries.stream_series import StreamExtent, read_threshold_steps

_RATE_WINDOWS = 5
_SIGNS = {HealthState.ENDED: "resolved"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadState:
    """A state in the head of the page: its sign, its words, and the page of the incident."""

    sign: str
    text: str
    href: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHead:
    """The head of a stream's page.

    Attributes:
        states: The open incidents, or the state of the stream.
        facts: Facts in a few words each.
    """

    states: Sequence[HeadState]
    facts: Sequence[str]


def read_stream_head(db: Database, stream: str, extent: StreamExtent) -> StreamHead:
    """Return the head of the page of a stream."""
    facts = read_health_facts(db, [stream])
    own = facts.streams[stream]
    health = judge_stream(own, facts.now_us)
    last_us = extent.last_us
    recent: Sequence[Rollup] = ()
    law: Mapping[str, Any] | None = None
    if last_us is not None:
        with db.read() as conn:
            first_us = last_us - _RATE_WINDOWS * extent.window_us
            recent = read_windows(conn, extent.stream_id, from_us=first_us, until_us=last_us)
            steps = read_threshold_steps(conn, extent.stream_id, from_us=last_us - 1, until_us=last_us)
        law = steps[-1].details.get("law") if steps else None
    return StreamHead(
        states=[*(_incident_state(each, last_us or facts.now_us) for each in own.incidents), *_health_states(health)],
        facts=[*_rate(recent), *_lag(health, last_us), *_learned(law)],
    )


def _incident_state(incident: OpenIncidentFacts, now_us: int) -> HeadState:
    sign = "critical" if incident.severity == "critical" else "warning"
    word = "open"
    if incident.acknowledged_by is not None:
        sign, word = "acknowledged", f"acknowledged by {incident.acknowledged_by}"
    age = duration(max(now_us - incident.opened_at_us, 0))
    return HeadState(
        sign=sign, text=f"{words(incident.kind).capitalize()}, {word}, {age}", href=f"/incidents/{incident.id}"
    )


def _health_states(health: StreamHealth) -> list[HeadState]:
    """Return the state of the stream, unless an incident in the list says it."""
    problems = [each for each in health.problems if each.incident_id is None]
    if problems:
        worst = problems[0]
        return [HeadState(sign=worst.level.value, text=f"{worst.level.value.capitalize()}: {worst.reason}")]
    if health.problems:
        return []
    sign = _SIGNS.get(health.state, health.state.value)
    share = "" if health.learned_share is None else f", {100 * health.learned_share:.0f}%"
    reason = f": {health.reason}" if health.reason else ""
    return [HeadState(sign=sign, text=f"{health.state.value.capitalize()}{share}{reason}")]


def _rate(recent: Sequence[Rollup]) -> list[str]:
    length_s = sum(row.end_us - row.start_us for row in recent) / 1e6
    return [f"{sum(row.events for row in recent) / length_s:,.3g} events/s"] if length_s else []


def _lag(health: StreamHealth, last_us: int | None) -> list[str]:
    proof = health.proof
    found = []
    if proof.waiting_s is not None:
        found.append(f"lag {duration(proof.waiting_s * 1e6)}")
    elif proof.lag_events is not None:
        found.append(f"lag {plural(proof.lag_events, 'event')}")
    if last_us is not None:
        behind_us = health.now_us - last_us
        found.append(
            f"windows judged up to {duration(behind_us)} ago" if behind_us >= 0 else "event time is ahead of the clock"
        )
    return found


def _learned(law: Mapping[str, Any] | None) -> list[str]:
    if law is None or law.get("state") != "provisional":
        return []
    return [f"{number(law.get('windows'))} windows learned, so the counts that fire are provisional"]
