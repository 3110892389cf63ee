"""The demo's view: what the database says of the stream, drawn for a terminal or said in a line."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Self

import numpy as np
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from config.settings import Settings
    from storage.history import History

_MAX_SHOWN_WINDOWS = 40
_MAX_SHOWN_INCIDENTS = 6
_BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownIncident:
    """An incident as a person reads it."""

    id: int
    kind: str
    status: str
    severity: str
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSnapshot:
    """What one look at the database brought; `windows` are the newest, oldest first."""

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
    """When the demo's stream was last committed, and how far."""

    def __init__(self, settings: "Settings", stream: str) -> None:
        from storage.database.engine import Database
        from storage.ledger.ledger import Ledger

        self._db = Database(settings.database.url)
        self._ledger = Ledger(self._db)
        self._stream_id = self._ledger.find_stream(stream)

    def read_newest(self) -> tuple[int, float | None]:
        """Return how many events are stored, and how many seconds ago the last were."""
        known = [] if self._stream_id is None else self._ledger.active_sources(self._stream_id)
        times = [each.committed_at_us for each in known if each.committed_at_us is not None]
        age_s = (self._db.now_us() - max(times)) / 1e6 if times else None
        return sum(each.next_offset for each in known), age_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()


def read_snapshot(history: "History", stream: str) -> DemoSnapshot:
    """Read the newest windows, the limit in force and the incidents."""
    rows = [batch for batch in history.windows(stream) if len(batch["events"])]
    columns = {
        name: [value for batch in rows for value in batch[name]]
        for name in ("window_start", "events", "outliers", "expected_outliers", "energy_p50", "energy_p99")
    }
    limits = [
        (float(limit), str(method))
        for batch in history.thresholds(stream)
        for limit, method in zip(batch["threshold"], batch["method"], strict=True)
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
        last_window=str(columns["window_start"][-1])[:19] if columns["window_start"] else "-",
        outliers=[int(value) for value in columns["outliers"][newest]],
        expected=[float(value) for value in columns["expected_outliers"][newest]],
        p50=[float(value) for value in columns["energy_p50"][newest]],
        p99=[float(value) for value in columns["energy_p99"][newest]],
        threshold=limits[-1][0] if limits else None,
        method=limits[-1][1] if limits else "",
        incidents=incidents,
    )


def format_plain_line(seen: DemoSnapshot, elapsed_s: float) -> str:
    """Return the state in one line, for where there is no terminal."""
    if not seen.windows:
        return f"{elapsed_s:5.0f} s  warming up"
    opened = sum(incident.status == "open" for incident in seen.incidents)
    return (
        f"{elapsed_s:5.0f} s  {seen.events:>9,} events in {seen.windows:,} windows up to {seen.last_window}  "
        f"limit {seen.threshold:.2f} ({seen.method})  incidents {len(seen.incidents)} ({opened} open)"
    )


def render_screen(seen: DemoSnapshot, elapsed_s: float, stored: int, age_s: float | None) -> RenderableType:
    """Return the state as a panel; `age_s` is how long ago the last of the `stored` events were committed."""
    if not seen.windows or seen.threshold is None:
        return Panel("warming up: the first model is fitted on the stream's own first events", title="outrider demo")
    facts = Table.grid(padding=(0, 2))
    facts.add_row("events", f"{stored:,}", "event time", seen.last_window)
    facts.add_row("events/s", f"{stored / max(elapsed_s, 1e-9):,.0f}", "windows", f"{seen.windows:,}")
    committed = "nothing yet" if age_s is None else f"{max(0.0, age_s):.1f} s ago"
    facts.add_row("last commit", committed, "elapsed", str(timedelta(seconds=int(elapsed_s))))
    rows: list[RenderableType] = [
        facts,
        Text(),
        Text(f"the last {len(seen.outliers)} windows", style="dim"),
        _render_sparkline("median energy", seen.p50, None),
        _render_sparkline("p99 energy   ", seen.p99, seen.threshold).append(
            f", the limit is {seen.threshold:.4g} ({seen.method})"
        ),
        _render_sparkline("outliers     ", [float(count) for count in seen.outliers], None).append(
            f", a clean window has {seen.expected[-1]:.3g}"
        ),
        Text(),
        _render_incidents(seen.incidents),
    ]
    return Panel(Group(*rows), title="outrider demo", subtitle="Ctrl-C ends it with the summary so far")


def _render_sparkline(title: str, values: list[float], limit: float | None) -> Text:
    """Return a sparkline, with the latest value behind it; what is above the limit is red."""
    text = Text(f"{title} ")
    finite = np.asarray(values, np.float64)
    low, high = float(finite.min()), float(finite.max())
    for value in finite:
        level = 1 + round((len(_BARS) - 2) * (value - low) / (high - low)) if high > low else 1
        text.append(_BARS[level], style="bold red" if limit is not None and value > limit else "cyan")
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
