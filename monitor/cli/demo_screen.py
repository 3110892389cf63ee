"""View of the demo's stream: a panel for a terminal, or a line of text."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Self

import numpy as np
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from config.time_format import format_short_time

if TYPE_CHECKING:
    from config.settings import Settings
    from storage.history import History

_MAX_SHOWN_WINDOWS = 40
_MAX_SHOWN_INCIDENTS = 6
_BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownIncident:
    """Row of the incident table."""

    id: int
    kind: str
    status: str
    severity: str
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSnapshot:
    """State of the stream at one read of the database; the lists hold the newest windows, oldest first."""

    events: int
    windows: int
    last_window: str
    outliers: list[int]
    expected: list[float]
    p50: list[float]
    p99: list[float]
    threshold: float | None
    method: str
    incidents: list[ShownIncident]


class CommitReader:
    """Reader of the stream's commit positions."""

    def __init__(self, settings: "Settings", stream: str) -> None:
        from storage.database.engine import Database
        from storage.ledger.ledger import Ledger

        self._db = Database(settings.database.url)
        self._ledger = Ledger(self._db)
        self._stream_id = self._ledger.find_stream(stream)

    def read_newest(self) -> tuple[int, float | None]:
        """Return the number of stored records and the age of the last commit in seconds, None before the first."""
        sources = [] if self._stream_id is None else self._ledger.active_sources(self._stream_id)
        times = [each.committed_at_us for each in sources if each.committed_at_us is not None]
        age_s = (self._db.now_us() - max(times)) / 1e6 if times else None
        return sum(each.next_offset for each in sources), age_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()


def read_snapshot(history: "History", stream: str) -> DemoSnapshot:
    """Read the newest windows, the threshold in force and the incidents."""
    rows = [batch for batch in history.windows(stream) if len(batch["events"])]
    columns = {
        name: [value for batch in rows for value in batch[name]]
        for name in ("window_start", "events", "outliers", "expected_outliers", "energy_p50", "energy_p99")
    }
    thresholds = [
        (float(threshold), str(method))
        for batch in history.thresholds(stream)
        for threshold, method in zip(batch["threshold"], batch["method"], strict=True)
    ]
    incidents = [
        ShownIncident(id=int(number), kind=str(kind), status=str(status), severity=str(severity), summary=str(summary))
        for batch in history.incidents(stream)
        for number, kind, status, severity, summary in zip(
            batch["id"], batch["kind"], batch["status"], batch["severity"], batch["summary"], strict=True
        )
    ]
    newest = slice(-_MAX_SHOWN_WINDOWS, None)
    return DemoSnapshot(
        events=int(sum(columns["events"])),
        windows=len(columns["events"]),
        last_window=format_short_time(str(columns["window_start"][-1])) if columns["window_start"] else "-",
        outliers=[int(value) for value in columns["outliers"][newest]],
        expected=[float(value) for value in columns["expected_outliers"][newest]],
        p50=[float(value) for value in columns["energy_p50"][newest]],
        p99=[float(value) for value in columns["energy_p99"][newest]],
        threshold=thresholds[-1][0] if thresholds else None,
        method=thresholds[-1][1] if thresholds else "",
        incidents=incidents,
    )


def format_plain_line(snapshot: DemoSnapshot, elapsed_s: float) -> str:
    """Return the state as one line, for output that is not a terminal."""
    if not snapshot.windows:
        return f"{elapsed_s:5.0f} s  warming up"
    opened = sum(incident.status == "open" for incident in snapshot.incidents)
    return (
        f"{elapsed_s:5.0f} s  {snapshot.events:>9,} events in {snapshot.windows:,} windows up to "
        f"{snapshot.last_window}  "
        f"threshold {snapshot.threshold:.2f} ({snapshot.method})  incidents {len(snapshot.incidents)} ({opened} open)"
    )


def render_screen(snapshot: DemoSnapshot, elapsed_s: float, stored: int, age_s: float | None) -> RenderableType:
    """Return the state as a panel.

    Args:
        snapshot: The state.
        elapsed_s: Seconds since the start of the demo.
        stored: Number of stored records.
        age_s: Seconds since the last commit, None before the first.
    """
    if not snapshot.windows or snapshot.threshold is None:
        return Panel("warming up: fitting the first model on the stream's first events", title="outrider demo")
    facts = Table.grid(padding=(0, 2))
    facts.add_row("events", f"{stored:,}", "event time", snapshot.last_window)
    facts.add_row("events/s", f"{stored / max(elapsed_s, 1e-9):,.0f}", "windows", f"{snapshot.windows:,}")
    committed = "none yet" if age_s is None else f"{max(0.0, age_s):.1f} s ago"
    facts.add_row("last commit", committed, "elapsed", str(timedelta(seconds=int(elapsed_s))))
    rows: list[RenderableType] = [
        facts,
        Text(),
        Text(f"the last {len(snapshot.outliers)} windows", style="dim"),
        _render_sparkline("median energy", snapshot.p50, None),
        _render_sparkline("p99 energy   ", snapshot.p99, snapshot.threshold).append(
            f", threshold {snapshot.threshold:.4g} ({snapshot.method})"
        ),
        _render_sparkline("outliers     ", [float(count) for count in snapshot.outliers], None).append(
            f", expected {snapshot.expected[-1]:.3g}"
        ),
        Text(),
        _render_incidents(snapshot.incidents),
    ]
    return Panel(Group(*rows), title="outrider demo", subtitle="Ctrl-C stops the demo and prints the summary")


def _render_sparkline(title: str, values: list[float], threshold: float | None) -> Text:
    """Return a sparkline followed by the latest value; values above the threshold are red."""
    text = Text(f"{title} ")
    finite = np.asarray(values, np.float64)
    low, high = float(finite.min()), float(finite.max())
    for value in finite:
        level = 1 + round((len(_BARS) - 2) * (value - low) / (high - low)) if high > low else 1
        text.append(_BARS[level], style="bold red" if threshold is not None and value > threshold else "cyan")
    return text.append(f" {finite[-1]:.4g}")


def _render_incidents(incidents: list[ShownIncident]) -> RenderableType:
    if not incidents:
        return Text("no incident yet", style="dim")
    table = Table(expand=True)
    for column in ("incident", "kind", "status", "why"):
        table.add_column(column)
    for incident in incidents[-_MAX_SHOWN_INCIDENTS:]:
        style = "bold red" if incident.status == "open" else "green"
        table.add_row(str(incident.id), incident.kind, Text(incident.status, style=style), incident.summary)
    return table
