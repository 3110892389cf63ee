"""The probes `/livez` and `/readyz` as pure functions of the conditions of the streams."""

from collections.abc import Sequence
from dataclasses import dataclass

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


def probe_readiness(checks: Sequence[StreamCheck], *, store_problem: str | None) -> ProbeResult:
    """Return whether all streams run and the database answers, with one line per check."""
    lines = [f"[{'ok' if store_problem is None else 'failed'}] database{_reason(store_problem)}"]
    is_ok = store_problem is None
    for each in checks:
        held = "; ".join(each.held_partitions)
        is_well = each.state in WELL_STATES and not held
        is_ok = is_ok and is_well
        state = each.state.replace("_", " ")
        lines.append(f"[{'ok' if is_well else 'failed'}] stream {each.stream}: {state}{_reason(each.reason or held)}")
    return ProbeResult(is_ok=is_ok, lines=lines)


def _reason(reason: str | None) -> str:
    return f": {reason}" if reason else ""
