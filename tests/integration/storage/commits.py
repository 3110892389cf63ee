"""Commits as the pipeline builds them, with one event per second from T0."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from storage.control.models import artefact_checksum
from storage.control.records import WindowRow, WindowSample
from storage.control.samples import insert_sample
from storage.control.thresholds import ThresholdStore
from storage.database.engine import Database
from storage.database.tables import models, positions, streams, thresholds
from storage.ledger.commit import (
    Commit,
    Committed,
    DeadLetterColumns,
    Fenced,
    OutlierColumns,
    ScoreColumns,
    Stale,
    StreamControl,
    WindowPartRow,
)
from storage.ledger.idle import IdleSource
from storage.ledger.ledger import Ledger
from storage.ledger.sources import NewSource, SourceClaim

T0 = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
SECOND = 1_000_000
MINUTE = 60 * SECOND
THRESHOLD = 10.0
ARTEFACT = b"an artefact"


def score_columns(begin: int, n: int, threshold_id: int, *, outliers: Sequence[int] = ()) -> ScoreColumns:
    """Return n events from offset `begin`, with energy 1, and energy 20 at the offsets of `outliers`."""
    offsets = np.arange(begin, begin + n, dtype=np.int64)
    energies = np.where(np.isin(offsets, outliers), 20, 1).astype(np.float32)
    return ScoreColumns(
        offsets=offsets,
        times_us=T0 + offsets * SECOND,
        energies=energies,
        threshold_ids=np.full(n, threshold_id, np.int64),
    )


def dead_letter_columns(offsets: Sequence[int], reason: str = "not_json", payload: bytes = b"{") -> DeadLetterColumns:
    begins = np.array(offsets, np.int64)
    return DeadLetterColumns(
        offsets=begins,
        end_offsets=begins + 1,
        reasons=[reason] * len(offsets),
        details=[f"detail of {offset}" for offset in offsets],
        payloads=[payload] * len(offsets),
    )


def part_row(start_us: int, *, events: int = 1, late: int = 0, threshold_id: int | None = None) -> WindowPartRow:
    return WindowPartRow(
        window_start_us=start_us,
        window_end_us=start_us + MINUTE,
        threshold_id=threshold_id,
        events=events,
        outliers=0,
        late=late,
        dead=0,
        payload=b"part",
    )


@dataclass
class ClaimedStream:
    """A stream with one claimed source; `commit` continues from the position of the claim."""

    db: Database
    stream_id: int
    threshold_id: int
    claim: SourceClaim
    control: StreamControl

    def build_commit(self, n: int, **changes: Any) -> Commit:
        begin = self.claim.next_offset
        outliers = changes.pop("outlier_offsets", ())
        scores = score_columns(begin, n, self.threshold_id, outliers=outliers)
        is_outlier = np.isin(scores.offsets, outliers)
        fields: dict[str, Any] = {
            "stream_id": self.stream_id,
            "source_id": self.claim.source_id,
            "epoch": self.claim.epoch,
            "begin": begin,
            "end": begin + n,
            "end_cursor": None,
            "watermark_us": int(scores.times_us[-1]) if n else None,
            "assumed_control": self.control,
            "scores": scores,
            "outliers": OutlierColumns(
                offsets=scores.offsets[is_outlier],
                times_us=scores.times_us[is_outlier],
                energies=scores.energies[is_outlier],
                threshold_ids=scores.threshold_ids[is_outlier],
                features=np.full((int(is_outlier.sum()), 2), 0.1, np.float32),
                feature_names=("amount", "age.days"),
            ),
            "dead": DeadLetterColumns.empty(),
            "gap_reason": None,
            "parts": (),
            "ended": False,
        }
        return Commit(**(fields | changes))

    def commit(self, n: int, **changes: Any) -> Committed | Fenced | Stale:
        return self.send(self.build_commit(n, **changes))

    def send(self, commit: Commit) -> Committed | Fenced | Stale:
        outcome = Ledger(self.db).commit(commit)
        if isinstance(outcome, Committed):
            self.claim = SourceClaim(
                source_id=commit.source_id,
                epoch=commit.epoch,
                next_offset=commit.end,
                cursor=commit.end_cursor,
                watermark_us=commit.watermark_us,
            )
        return outcome

    def reclaim(self, owner: str) -> SourceClaim:
        claim = Ledger(self.db).claim_source(self.claim.source_id, owner)
        assert claim is not None
        return claim

    def mark_idle(self, seen_us: int, **changes: int) -> bool:
        claim = {name: getattr(self.claim, name) for name in ("source_id", "epoch", "next_offset")}
        return bool(Ledger(self.db).mark_idle([IdleSource(**(claim | changes))], seen_us))

    def position(self) -> Any:
        with self.db.read() as connection:
            return connection.execute(sa.select(positions).where(positions.c.source_id == self.claim.source_id)).one()


def claim_stream(db: Database, name: str = "payments", partition: int = 0) -> ClaimedStream:
    ledger = Ledger(db)
    stream = ledger.open_stream(name, MINUTE, lead_us=10 * MINUTE)
    schedule = ledger.read_threshold_schedule(stream.id)
    threshold_id = schedule[0].id if schedule else add_threshold(db, stream.id)
    sources = ledger.register_sources(
        stream.id, [NewSource(topic=name, partition=partition, identity="log-1", next_offset=0)]
    )
    source = next(each for each in sources if each.partition == partition)
    claim = ledger.claim_source(source.source_id, "me")
    assert claim is not None
    return ClaimedStream(db=db, stream_id=stream.id, threshold_id=threshold_id, claim=claim, control=stream.control)


def add_threshold(db: Database, stream_id: int, *, threshold: float = THRESHOLD, valid_from_us: int = 0) -> int:
    with db.write() as connection:
        model_id = connection.scalar(
            sa.insert(models)
            .values(
                stream_id=stream_id,
                version=sa.select(sa.func.count() + 1)
                .select_from(models)
                .where(models.c.stream_id == stream_id)
                .scalar_subquery(),
                kind="gaussian_mixture",
                state="active",
                artefact=ARTEFACT,
                checksum=artefact_checksum(ARTEFACT),
                created_at_us=T0,
                feature_names='["amount", "age.days"]',
                summary='{"n": 3}',
            )
            .returning(models.c.id)
        )
        threshold_id = connection.scalar(
            sa.insert(thresholds)
            .values(
                stream_id=stream_id,
                model_id=model_id,
                computed_at_us=valid_from_us,
                valid_from_us=valid_from_us,
                percentile=99.5,
                threshold=threshold,
                n=2000,
                method="percentile",
                recorded_at_us=T0,
            )
            .returning(thresholds.c.id)
        )
    assert threshold_id is not None
    return int(threshold_id)


def seal(db: Database, stream_id: int, until_us: int, *, revisions: int = 0) -> None:
    with db.write() as connection:
        connection.execute(
            sa.update(streams)
            .where(streams.c.id == stream_id)
            .values(sealed_until_us=until_us, revision=streams.c.revision + revisions)
        )


def count_rows(db: Database, table: str) -> int:
    with db.read() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def fetch_rows(db: Database, query: str) -> list[tuple[Any, ...]]:
    with db.read() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def store_sample(feed: ClaimedStream, start_us: int, payload: bytes = b"sample") -> None:
    """Store the sample of the window of a minute that starts at a time, as its judgement does."""
    row = WindowRow(
        window_start_us=start_us,
        window_end_us=start_us + MINUTE,
        threshold_id=feed.threshold_id,
        events=1,
        outliers=0,
        late=0,
        dead=0,
        judged=True,
    )
    model_id = ThresholdStore(feed.db).threshold(feed.threshold_id).model_id
    with feed.db.write() as connection:
        insert_sample(connection, feed.stream_id, row, WindowSample(model_id=model_id, payload=payload))
