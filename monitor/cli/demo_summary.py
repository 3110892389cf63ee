"""Comparison of the bursts and the drift planted in the demo's stream with the incidents found."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from config.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSpan:
    """Half-open interval of event time in microseconds."""

    start_us: int
    end_us: int

    def overlaps(self, other: "TimeSpan", slack_us: int = 0) -> bool:
        """Return whether the intervals overlap, or lie less than `slack_us` apart."""
        return self.start_us < other.end_us + slack_us and other.start_us < self.end_us + slack_us


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectedIncident:
    """Incident: kind, time from its window to its opening, and for drift the drifted features."""

    kind: str
    window: TimeSpan
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectedDrift:
    """Detection of the planted drift: first drifted feature, and delay after the start of the drift."""

    feature: str
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSummary:
    """Counts of planted and found bursts and drifts."""

    bursts: int
    bursts_found: int
    delays_s: list[float]
    drift_planted: bool
    drift_found: DetectedDrift | None
    false_incidents: int
    incidents: int
    events: int


def summarise_demo(settings: "Settings", stream: str) -> DemoSummary:
    """Compare the stored incidents with the anomalies planted up to the last stored window."""
    from consumers.open import open_source
    from consumers.synthetic.source import SyntheticSource
    from storage.database.engine import Database
    from storage.history import History
    from storage.ledger.ledger import Ledger

    with Database(settings.database.url) as db:
        ledger = Ledger(db)
        stream_id = ledger.find_stream(stream)
        sources = [] if stream_id is None else ledger.active_sources(stream_id)
    source = open_source(stream, settings, group=False, identity=sources[0].identity if sources else None)
    if not isinstance(source, SyntheticSource):
        raise TypeError(f"the demo reads a synthetic stream, not a {type(source).__name__}")
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
    planted = source.planted_anomalies(until_us)
    source.close()
    return compare_with_planted(planted, incidents, events)


def compare_with_planted(
    planted: list[tuple[int, int, str]], incidents: list[DetectedIncident], events: int
) -> DemoSummary:
    """Count the detected bursts, their delays, and the incidents that match no planted anomaly.

    A burst is detected by an incident of any kind but drift that overlaps it.

    Args:
        planted: Start and end in microseconds, and kind, of each burst and drift.
        incidents: The incidents in order.
        events: Number of events in windows.
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
    matching = [each for each in outside if any(each.window.overlaps(drift) for drift in drifts)]
    first_drift = next((each for each in matching if each.kind == "drift"), None)
    return DemoSummary(
        bursts=len(bursts),
        bursts_found=len(delays),
        delays_s=delays,
        drift_planted=bool(drifts),
        drift_found=None
        if first_drift is None
        else DetectedDrift(
            feature=first_drift.features[0] if first_drift.features else "",
            delay_s=(first_drift.window.end_us - drifts[0].start_us) / 1e6,
        ),
        false_incidents=len(outside) - len(matching),
        incidents=len(incidents),
        events=events,
    )


def format_summary(summary: DemoSummary, url: str, stream: str) -> list[str]:
    """Return the summary and three example queries as lines of text."""
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
    # The stream name was generated by the demo, so quoting it is safe.
    queries = (
        f"select id, kind, status, opened_at, summary from incident_history where stream = '{stream}'",
        f"select window_start, events, outliers, expected_outliers from window_history "
        f"where stream = '{stream}' order by p_value limit 5",
        f"select event_time, event_id, energy, threshold, features from outlier_history "
        f"where stream = '{stream}' order by energy desc limit 3",
    )
    return [*lines, "", "try:", *(f'  {command} "{query}"' for query in queries)]


def _format_drift(drift: DetectedDrift | None) -> str:
    if drift is None:
        return "planted 1 drift near the end, found 0"
    minutes = drift.delay_s / 60
    return (
        f"planted 1 drift near the end, found 1: {drift.feature} moved, reported {minutes:.0f} min of event time later"
    )


def _drifted_features(details: Any) -> tuple[str, ...]:
    """Return the drifted features of the first horizon in an incident's details, in stored order."""
    horizons = (details or {}).get("opened", {}).get("horizons") or [{}]
    return tuple(each["feature"] for each in horizons[0].get("drifted", ()) if each["feature"])


def _to_us(moment: Any) -> int:
    """Convert a stored time, a NumPy datetime64, to microseconds since 1970."""
    return int(moment.astype("datetime64[us]").astype("int64"))
