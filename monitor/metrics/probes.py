"""The probes `/livez` and `/readyz` as pure functions of the conditions of the streams."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monitor.health.stream_health import StreamHealth
from storage.database.tables import HEALTH_REPORT_TTL_S

STUCK_AFTER_S = 600.0
"""Time without progress of waiting records after which a restart of the process may help."""

WELL_STATES = frozenset({"running", "ended", "warming_up"})
"""The states in which a stream is ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCheck:
    """The condition of one stream for the probes.

    Attributes:
        stream: Name of the stream.
        state: The state, as in the view `health`.
        reason: The reason in words; None if there is nothing to explain.
        stuck_s: Seconds that records have waited without a commit; 0 without waiting records.
        has_outage: Whether the broker or the topic is away.
        held_partitions: The partitions that have records and do not move, each with its reason.
    """

    stream: str
    state: str
    reason: str | None
    stuck_s: float
    has_outage: bool
    held_partitions: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """The result of a probe, and its lines of text, one per check."""

    is_ok: bool
    lines: Sequence[str]


def probe_liveness(checks: Sequence[StreamCheck], *, is_store_available: bool) -> ProbeResult:
    """Return whether a restart of the process would not help.

    A restart helps only if records wait and nothing is committed although broker and database answer. The text names no
    stream.
    """
    stuck = [each for each in checks if each.stuck_s > STUCK_AFTER_S and not each.has_outage]
    if not is_store_available or not stuck:
        return ProbeResult(is_ok=True, lines=["ok"])
    longest_s = max(each.stuck_s for each in stuck)
    return ProbeResult(
        is_ok=False, lines=[f"{len(stuck)} streams have waiting records and no commit for up to {longest_s:.0f} s"]
    )


def probe_readiness(
    checks: Sequence[StreamCheck], judged: Mapping[str, StreamHealth], *, judged_age_s: float, store_problem: str | None
) -> ProbeResult:
    """Return whether it is proven that all streams are monitored, with one line per check.

    Findings about the events, such as a spike or a silent source, are no reason: the process does its work.

    Args:
        checks: The present conditions of the streams in this process.
        judged: The health of the streams from the stored rows of all processes, by name.
        judged_age_s: Seconds since this process has stored its reports and read these rows.
        store_problem: Why the database does not answer; None if it does.
    """
    is_reported = judged_age_s < HEALTH_REPORT_TTL_S
    lines = [_check_line("database", None, store_problem, is_ok=store_problem is None)]
    age = "no report is stored yet" if judged_age_s == float("inf") else f"the last was stored {judged_age_s:.0f} s ago"
    lines.append(_check_line("reports", None, age, is_ok=is_reported))
    is_ok = is_reported and store_problem is None
    for each in checks:
        health = judged.get(each.stream)
        fault = None if health is None else health.first_fault
        held = "; ".join(each.held_partitions)
        is_well = each.state in WELL_STATES and not held and health is not None and fault is None
        is_ok = is_ok and is_well
        reason = each.reason or held or (None if fault is None else fault.reason)
        lines.append(_check_line(f"stream {each.stream}", each.state.replace("_", " "), reason, is_ok=is_well))
    return ProbeResult(is_ok=is_ok, lines=lines)


def _check_line(name: str, state: str | None, reason: str | None, *, is_ok: bool) -> str:
    return ": ".join(part for part in (f"[{'ok' if is_ok else 'failed'}] {name}", state, reason) if part)
