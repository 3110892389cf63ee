"""View of the demo: panel for a terminal, and a plain line."""

from io import StringIO

from rich.console import Console

from monitor.cli.demo_screen import DemoSnapshot, ShownIncident, format_plain_line, render_screen

SPIKE = ShownIncident(id=7, kind="spike", status="open", severity="critical", summary="69 outliers among 1,200 events")
SNAPSHOT = DemoSnapshot(
    events=12_000,
    windows=10,
    last_window="2026-01-01T00:54:00Z",
    outliers=[6, 5, 69],
    expected=[6.0, 6.0, 6.0],
    p50=[6.1, 6.2, 6.1],
    p99=[11.2, 11.1, 19.0],
    threshold=11.75,
    method="plain",
    incidents=[SPIKE],
)
EMPTY_SNAPSHOT = DemoSnapshot(
    events=0,
    windows=0,
    last_window="-",
    outliers=[],
    expected=[],
    p50=[],
    p99=[],
    threshold=None,
    method="",
    incidents=[],
)


def render_text(snapshot: DemoSnapshot) -> str:
    terminal = Console(file=StringIO(), width=100, force_terminal=False)
    terminal.print(render_screen(snapshot, 4.0, 12_400, 0.5))
    written = terminal.file
    assert isinstance(written, StringIO)
    return written.getvalue()


def test_panel_shows_rate_energies_threshold_and_incidents() -> None:
    shown = render_text(SNAPSHOT)
    for part in ("12,400", "3,100", "0.5 s ago", "19, threshold 11.75", "69, expected 6", "open", "spike"):
        assert part in shown


def test_view_shows_warm_up_before_the_first_window() -> None:
    assert "warming up" in render_text(EMPTY_SNAPSHOT)
    assert "warming up" in format_plain_line(EMPTY_SNAPSHOT, 1.0)


def test_plain_line_shows_progress_and_open_incidents() -> None:
    line = format_plain_line(SNAPSHOT, 4.0)
    assert "12,000 events in 10 windows up to 2026-01-01T00:54:00Z" in line
    assert "incidents 1 (1 open)" in line
