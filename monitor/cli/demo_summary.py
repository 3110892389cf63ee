"""What was planted in the demo's stream against what the daemon found."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from config.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSpan:
    """An interval of event time in microseconds."""

    start_us: int
    end_us: int

    def overlaps(self, other: "TimeSpan", slack_us: int = 0) -> bool:
        """Return whether the two have time in common."""
        return self.start_us < other.end_us + slack_us and other.start_us < self.end_us + slack_us


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectedIncident:
    """An incident: its kind, its first window, and the features that moved, where it is of drift."""

    kind: str
    window: TimeSpan
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectedDrift:
    """The incident that told of the planted drift: what it names first, and how long after the drift began."""

    feature: str
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSummary:
    """Planted against found."""

    bursts: int
    bursts_found: int
    delays_s: list[float]
    drift_planted: bool
    drift_found: DetectedDrift | None
    false_incidents: int
    incidents: int
    events: int


def summarise_demo(settings: "Settings", stream: str) -> DemoSummary:
    """Read what was stored and compare it with what the source planted up to there."""
    from consumers.open import open_source
    from storage.database.engine import Database
    from storage.history import History
    from storage.ledger.ledger import Ledger

    with Database(settings.database.url) as db:
        ledger = Ledger(db)
        stream_id = ledger.find_stream(stream)
        sources = [] if stream_id is None else ledger.active_sources(stream_id)
    source: Any = open_source(stream, settings, group=False, identity=sources[0].identity if sources else None)
    with History(settings.database.url) as history:
        windows = list(history.windows(stream))
        events = sum(int(n) for batch in windows for n in batch["events"])
        until_us = max((_to_us(end) for batch in windows for end in batch["window_end"]), default=0)
        incidents = [
            DetectedIncident(
                kind=str(kind),
                window=TimeSpan(start_us=_to_us(start), end_us=_to_us(opened)),
                features=_drifted_features(details),
            )
            for batch in history.incidents(stream)
            for kind, start, opened, details in zip(
                batch["kind"], batch["window_start"], batch["opened_at"], batch["details"], strict=True
            )
        ]
    planted = source.planted(until_us)
    source.close()
    return compare_with_planted(planted, incidents, events)


def compare_with_planted(
    planted: list[tuple[int, int, str]], incidents: list[DetectedIncident], events: int
) -> DemoSummary:
    """Count the bursts in which an incident opened, how late, and the incidents that tell of nothing planted.

    Args:
        planted: Start, end and kind of each burst and drift.
        incidents: The incidents in order.
        events: How many events were in windows.
    """
    bursts = [TimeSpan(start_us=start, end_us=end) for start, end, kind in planted if kind == "burst"]
    drifts = [TimeSpan(start_us=start, end_us=end) for start, end, kind in planted if kind == "drift"]
    delays = []
    for burst in bursts:
        spikes = [each.window.end_us for each in incidents if each.kind != "drift" and each.window.overlaps(burst)]
        first = min(spikes, default=None)
        if first is not None:
            delays.append((first - burst.start_us) / 1e6)
    outside = [
        each for each in incidents if each.kind == "drift" or not any(each.window.overlaps(burst) for burst in bursts)
    ]
    told = [each for each in outside if any(each.window.overlaps(drift) for drift in drifts)]
    named = next((each for each in told if each.kind == "drift"), None)
    return DemoSummary(
        bursts=len(bursts),
        bursts_found=len(delays),
        delays_s=delays,
        drift_planted=bool(drifts),
        drift_found=None
        if named is None
        else DetectedDrift(
            feature=named.features[0] if named.features else "",
            delay_s=(named.window.end_us - drifts[0].start_us) / 1e6,
        ),
        false_incidents=len(outside) - len(told),
        incidents=len(incidents),
        events=events,
    )


def format_summary(summary: DemoSummary, url: str, stream: str) -> list[str]:
    """Return the summary and three queries to try, for people."""
    delays = sorted(summary.delays_s)
    late = f", judged {delays[len(delays) // 2]:.0f} s (median) of event time after they began" if delays else ""
    lines = [
        "",
        f"planted {summary.bursts} bursts, found {summary.bursts_found}{late}",
        f"false incidents: {summary.false_incidents} (of {summary.incidents} incidents over {summary.events:,} events)",
    ]
    if summary.drift_planted:
        lines.append(_format_drift(summary.drift_found))
    command = f"sqlite3 {url.removeprefix('sqlite:///')}" if url.startswith("sqlite") else f"psql {url}"
    # The stream's name is the demo's own.
    queries = (
        f"select id, kind, status, opened_at, summary from incident_history where stream = '{stream}'",
        f"select window_start, events, outliers, expected_outliers from window_history "
        f"where stream = '{stream}' order by p_value limit 5",
        f"select event_time, event_id, energy, threshold, features from outlier_history "
        f"where stream = '{stream}' order by energy desc limit 3",
    )
    return [*lines, "", "try:", *(f'  {command} "{query}"' for query in queries)]


def _format_drift(found: DetectedDrift | None) -> str:
    if found is None:
        return "planted 1 drift near the end, found 0"
    minutes = found.delay_s / 60
    return f"planted 1 drift near the end, found 1: {found.feature} moved, told {minutes:.0f} min of event time later"


def _drifted_features(details: Any) -> tuple[str, ...]:
    """Return the features of a drift in order, of an incident's details."""
    horizons = (details or {}).get("opened", {}).get("horizons") or [{}]
    return tuple(each["feature"] for each in horizons[0].get("drifted", ()) if each["feature"])


def _to_us(moment: Any) -> int:
    """Return a stored time, a numpy datetime64, in microseconds."""
    return int(moment.astype("datetime64[us]").astype("int64"))
