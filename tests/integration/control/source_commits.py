"""Sources that commit parts, and judgements of their windows."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np

from monitor.statistics.part import Part, Scale, summarise
from monitor.statistics.part_codec import encode_part
from storage.control.records import Incident, Judgement, Transition, WindowFacts, WindowRow
from storage.control.windows import WindowStore
from storage.database.engine import Database
from storage.ledger.commit import (
    Commit,
    Committed,
    DeadLetterColumns,
    OutlierColumns,
    ScoreColumns,
    Stale,
    WindowPartRow,
)
from storage.ledger.ledger import Ledger
from tests.integration.control.worker_bench import MINUTE, T0

T = TypeVar("T")


class CommittingSource:
    """One claimed source that commits parts without scores."""

    def __init__(self, db: Database, stream_id: int, number: int = 0) -> None:
        self.ledger = Ledger(db)
        self.stream_id = stream_id
        source = next(each for each in self.ledger.active_sources(stream_id) if each.partition == number)
        claim = self.ledger.claim_source(source.source_id, "me")
        assert claim is not None
        self.claim = claim
        self.offset = claim.next_offset
        self.threshold_id = self.ledger.read_threshold_schedule(stream_id)[0].id

    def commit(
        self, *parts: WindowPartRow, watermark_us: int | None = None, gap: str | None = None, ended: bool = False
    ) -> Committed | Stale:
        outcome = self.ledger.commit(
            Commit(
                stream_id=self.stream_id,
                source_id=self.claim.source_id,
                epoch=self.claim.epoch,
                begin=self.offset,
                end=self.offset + 1,
                end_cursor=None,
                watermark_us=watermark_us,
                assumed_control=self.ledger.read_control(self.stream_id),
                scores=ScoreColumns.empty(),
                outliers=OutlierColumns.empty(),
                dead=DeadLetterColumns.empty(),
                gap_reason=gap,
                parts=parts,
                ended=ended,
            )
        )
        assert isinstance(outcome, Committed | Stale)
        self.offset += isinstance(outcome, Committed)
        return outcome

    def part(self, window: int = 0, *, events: int = 1, late: int = 0, dead: int = 0) -> WindowPartRow:
        """Return a part of the window that starts `window` minutes after T0."""
        energies = np.full(events, 2.0, np.float32)
        part: Part = replace(
            summarise(energies, energies > 10, Scale(median=1.0, iqr=1.0)) if events else Part.without_events(),
            late=late,
            dead=dead,
        )
        return WindowPartRow(
            window_start_us=T0 + window * MINUTE,
            window_end_us=T0 + (window + 1) * MINUTE,
            threshold_id=self.threshold_id,
            events=events,
            outliers=0,
            late=late,
            dead=dead,
            payload=encode_part(part),
        )


def judged_window_row(facts: WindowFacts) -> WindowRow:
    return WindowRow(
        window_start_us=facts.window_start_us,
        window_end_us=facts.window_end_us,
        threshold_id=facts.parts[0].threshold_id,
        events=sum(part.events for part in facts.parts),
        outliers=0,
        late=sum(part.late for part in facts.parts),
        dead=sum(part.dead for part in facts.parts),
        judged=True,
    )


def opened_incident(facts: WindowFacts, kind: str = "spike", channels: tuple[str, ...] = ("log",)) -> Incident:
    start, end = facts.window_start_us, facts.window_end_us
    transition = Transition(
        type="opened",
        severity="warning",
        window_start_us=start,
        at_us=end,
        summary="a spike",
        details={"n": 1},
        channels=channels,
    )
    return Incident(
        id=None,
        kind=kind,
        severity="warning",
        status="open",
        window_start_us=start,
        opened_at_us=end,
        last_told_us=end,
        clean_windows=0,
        windows_fired=1,
        summary="a spike",
        details={},
        transition=transition,
    )


def judge_clean(facts: WindowFacts) -> Judgement:
    return Judgement(window=judged_window_row(facts))


def judge_spike(facts: WindowFacts) -> Judgement:
    return Judgement(window=judged_window_row(facts), incidents=[opened_incident(facts)])


def judge_stored_window(
    store: WindowStore, stream_id: int, window_start_us: int, decide: Callable[[WindowFacts], Judgement]
) -> bool:
    """Read a window, decide and store the judgement, as the control plane does; return whether it was stored."""
    facts = store.read_window(stream_id, window_start_us)
    if facts is None:
        return False
    if facts.is_judged:
        return store.add_late_parts(stream_id, window_start_us)
    return store.store_judgement(stream_id, "payments", facts, decide(facts))


def run_concurrently(*calls: Callable[[], T]) -> list[T]:
    """Call all functions at the same time, each in its own thread."""
    gate = threading.Barrier(len(calls))

    def call(each: Callable[[], T]) -> T:
        gate.wait(10)
        return each()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))
