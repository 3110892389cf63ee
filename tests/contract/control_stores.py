"""The stores of a control plane under one interface: in a database and in the memory of a back-test."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from config.stream_rules import WindowRules
from consumers.window_schedule import make_window_schedule
from monitor.backtest.memory_drift_store import MemoryDriftStore
from monitor.backtest.memory_store import MemoryStore
from monitor.control_plane.stores import DriftStoreProtocol, ThresholdStoreProtocol, WindowStoreProtocol
from storage.control.drift import DriftStore
from storage.control.records import Incident, Judgement, StoredGap, Transition, WindowFacts, WindowRow
from storage.control.thresholds import ThresholdRow, ThresholdStore
from storage.control.windows import WindowStore
from storage.database.engine import Database
from storage.database.tables import shadow_windows
from storage.ledger.commit import Committed, WindowPartRow
from storage.ledger.ledger import Ledger
from tests.integration.storage.commits import MINUTE, T0, add_threshold, claim_stream

STREAM_LEAD_US = 10 * MINUTE
WINDOWS = make_window_schedule((WindowRules(size_us=MINUTE, grace_us=0, ahead_us=STREAM_LEAD_US),))


class ControlStores(Protocol):
    """The stores of one stream with one source, one active model and one threshold row valid from time 0."""

    windows: WindowStoreProtocol
    thresholds: ThresholdStoreProtocol
    drift: DriftStoreProtocol
    stream_id: int
    stream: str
    model_id: int
    threshold_id: int

    def commit(self, *parts: WindowPartRow, watermark_us: int | None = None) -> None:
        """Commit parts and a watermark, as the data plane does."""

    def commit_gap(self, reason: str, watermark_us: int) -> None:
        """Commit a range of offsets that could not be read."""

    def end_source(self) -> None:
        """Commit the end of the source."""

    def activate(self, valid_from_us: int) -> tuple[int, int]:
        """Activate a second model from a time on; return its model id and its threshold id."""

    def score_in_shadow(self, model_id: int, window: int) -> None:
        """Store the window that starts `window` minutes after T0 as a shadow model scored it."""


class DatabaseStores:
    """The stores of `storage.control` on one stream of a database."""

    def __init__(self, db: Database, name: str) -> None:
        self.windows: WindowStoreProtocol = WindowStore(db)
        self.thresholds: ThresholdStoreProtocol = ThresholdStore(db)
        self.drift: DriftStoreProtocol = DriftStore(db)
        self.stream = name
        self._db = db
        self._source = claim_stream(db, name)
        self.stream_id = self._source.stream_id
        self.threshold_id = self._source.threshold_id
        self.model_id = self.thresholds.threshold(self.threshold_id).model_id

    def _commit(self, **changes: Any) -> None:
        end = self._source.claim.next_offset + 1
        control = Ledger(self._db).read_control(self.stream_id)
        outcome = self._source.commit(0, end=end, assumed_control=control, **changes)
        assert isinstance(outcome, Committed)

    def commit(self, *parts: WindowPartRow, watermark_us: int | None = None) -> None:
        self._commit(parts=parts, watermark_us=watermark_us)

    def commit_gap(self, reason: str, watermark_us: int) -> None:
        self._commit(gap_reason=reason, watermark_us=watermark_us)

    def end_source(self) -> None:
        self._commit(ended=True)

    def activate(self, valid_from_us: int) -> tuple[int, int]:
        threshold_id = add_threshold(self._db, self.stream_id, valid_from_us=valid_from_us)
        return self.thresholds.threshold(threshold_id).model_id, threshold_id

    def score_in_shadow(self, model_id: int, window: int) -> None:
        with self._db.write() as connection:
            connection.execute(
                shadow_windows.insert().values(
                    model_id=model_id,
                    window_start_us=T0 + window * MINUTE,
                    stream_id=self.stream_id,
                    window_end_us=T0 + (window + 1) * MINUTE,
                    events=1,
                    outliers=0,
                    payload=f"shadow of {window}".encode(),
                )
            )


class BacktestStores:
    """The stores that a back-test holds in memory."""

    def __init__(self, name: str) -> None:
        self._memory = memory = MemoryStore([], windows=WINDOWS, lead_us=STREAM_LEAD_US)
        self.windows: WindowStoreProtocol = memory
        self.thresholds: ThresholdStoreProtocol = memory
        self.drift: DriftStoreProtocol = MemoryDriftStore(memory)
        self.stream_id, self.stream, self.model_id = 1, name, 1
        self.threshold_id = memory.insert_threshold(new_threshold(self.model_id, 0)).id
        self._offset = 0

    def commit(self, *parts: WindowPartRow, watermark_us: int | None = None) -> None:
        self._memory.add_parts(parts, watermark_us)

    def commit_gap(self, reason: str, watermark_us: int) -> None:
        self._memory.add_parts((), watermark_us)
        self._offset += 1
        self._memory.add_gap(
            StoredGap(
                id=self._offset,
                topic=self.stream,
                partition=0,
                from_offset=self._offset,
                to_offset=self._offset + 1,
                reason=reason,
            )
        )

    def end_source(self) -> None:
        self._memory.end_source()

    def activate(self, valid_from_us: int) -> tuple[int, int]:
        stored = self._memory.insert_threshold(new_threshold(self.model_id + 1, valid_from_us))
        return stored.model_id, stored.id

    def score_in_shadow(self, model_id: int, window: int) -> None:
        seen = {T0 + window * MINUTE: f"shadow of {window}".encode()}
        self._memory.shadow = {**self._memory.shadow, model_id: {**self._memory.shadow.get(model_id, {}), **seen}}


def make_judgement(
    facts: WindowFacts,
    *,
    details: Mapping[str, Any] | None = None,
    incidents: Sequence[Incident] = (),
    gap_incident: bool = False,
    state: Mapping[str, Any] | None = None,
) -> Judgement:
    """Return a judgement of a window; with `gap_incident` its gaps open an incident."""
    opens_gap = gap_incident and bool(facts.gaps)
    return Judgement(
        window=WindowRow(
            window_start_us=facts.window_start_us,
            window_end_us=facts.window_end_us,
            threshold_id=facts.parts[0].threshold_id,
            events=sum(part.events for part in facts.parts),
            outliers=sum(part.outliers for part in facts.parts),
            late=sum(part.late for part in facts.parts),
            dead=sum(part.dead for part in facts.parts),
            judged=True,
            payload=b"|".join(part.payload for part in facts.parts),
            details=details,
        ),
        incidents=[*incidents, *([incident("gap", facts.window_end_us)] if opens_gap else [])],
        gap_ids=[gap.id for gap in facts.gaps] if opens_gap else (),
        state=state,
    )


def part(
    stores: ControlStores,
    window: int,
    *,
    events: int = 1,
    outliers: int = 0,
    late: int = 0,
    dead: int = 0,
    threshold_id: int | None = None,
) -> WindowPartRow:
    """Return a part of the window that starts `window` minutes after T0; its payload names the window."""
    return WindowPartRow(
        window_start_us=T0 + window * MINUTE,
        window_end_us=T0 + (window + 1) * MINUTE,
        threshold_id=threshold_id or stores.threshold_id,
        events=events,
        outliers=outliers,
        late=late,
        dead=dead,
        payload=f"part of {window}".encode(),
    )


def incident(kind: str, opened_at_us: int, incident_id: int | None = None, *, status: str = "open") -> Incident:
    """Return an incident to write: a new one that opens, or an update of the stored one."""
    resolved = status == "resolved"
    return Incident(
        id=incident_id,
        kind=kind,
        severity="warning",
        status=status,
        window_start_us=opened_at_us - MINUTE,
        opened_at_us=opened_at_us,
        last_told_us=opened_at_us,
        clean_windows=0,
        windows_fired=1,
        summary=f"a {kind}",
        details={"n": 1},
        resolved_at_us=opened_at_us + MINUTE if resolved else None,
        transition=Transition(
            type="resolved" if resolved else "opened",
            severity="warning",
            window_start_us=opened_at_us - MINUTE,
            at_us=opened_at_us,
            summary=f"a {kind}",
            details={"n": 1},
            channels=("log",),
        ),
    )


def new_threshold(model_id: int, valid_from_us: int, threshold: float = 10.0) -> ThresholdRow:
    """Return a threshold row that was computed at the start of its validity."""
    return ThresholdRow(
        model_id=model_id,
        computed_at_us=valid_from_us,
        valid_from_us=valid_from_us,
        percentile=99.5,
        threshold=threshold,
        lower=threshold - 1,
        upper=threshold + 1,
        n=2000,
        method="percentile",
        details={"source": "test"},
    )
