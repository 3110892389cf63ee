"""Incidents that are written as the control plane writes them, without events."""

from collections.abc import Sequence

from monitor.incidents.lifecycle import Finding, Interval, Kind, Severity
from monitor.incidents.rows import update_incident
from storage.control.incidents import change_incidents
from storage.control.records import Incident
from storage.database.engine import Database
from tests.integration.control.worker_bench import SECOND, T0
from tests.rules import make_rules

WINDOW_S = 9


class IncidentLife:
    """The spikes of a stream, window by window, told to these channels."""

    def __init__(self, db: Database, stream_id: int, channels: Sequence[str]) -> None:
        self._db = db
        self._stream_id = stream_id
        self._window = 0
        self._rules = make_rules(
            size_us=WINDOW_S * SECOND,
            resolve_after=3,
            reopen_within_us=1_800 * SECOND,
            max_age_us=10**17,
            channels=lambda _kind, _severity: tuple(channels),
        )

    def fire(self, severity: Severity = Severity.WARNING) -> None:
        """Judge a window with a spike."""
        self._judge(Finding(kind=Kind.SPIKE, severity=severity, summary="a spike", details={"outliers": 30}))

    def rest(self, windows: int = 1) -> None:
        """Judge windows without a spike."""
        for _ in range(windows):
            self._judge(None)

    def _judge(self, finding: Finding | None) -> None:
        start_us = T0 + self._window * WINDOW_S * SECOND
        window = Interval(start_us=start_us, end_us=start_us + WINDOW_S * SECOND)

        def decide(open_incidents: Sequence[Incident]) -> list[Incident]:
            return update_incident(Kind.SPIKE, finding, open_incidents, window, self._rules, now_us=window.end_us)

        change_incidents(self._db, self._stream_id, "payments", decide)
        self._window += 1
