"""From a folded batch to the ledger's commit: the same columns in the store's words. Pure."""

import numpy as np

from consumers.batch import DeadLetters, DecodedBatch, Position
from monitor.pipeline.fold import FoldedBatch, ScoredEvents
from storage.ledger.commit import Commit, DeadLetterColumns, OutlierColumns, ScoreColumns, StreamControl
from storage.ledger.sources import SourceClaim


def build_commit(
    stream_id: int,
    claim: SourceClaim,
    batch: DecodedBatch,
    folded: FoldedBatch,
    assumed: StreamControl,
    features: tuple[str, ...],
) -> Commit:
    """Return the commit of what was folded of a batch."""
    return Commit(
        stream_id=stream_id,
        source_id=claim.source_id,
        epoch=claim.epoch,
        begin=batch.begin,
        end=folded.end,
        end_cursor=batch.cursor_at(folded.end),
        watermark_us=folded.watermark_us,
        assumed_control=assumed,
        scores=_score_columns(folded.scored),
        outliers=_outlier_columns(folded.scored, features),
        dead=_dead_letter_columns(folded.dead),
        gap_reason=None,
        parts=folded.parts,
        shadow_parts=folded.shadow_parts,
        ended=False,
    )


def build_position_commit(
    stream_id: int,
    claim: SourceClaim,
    batch: DecodedBatch | None,
    at: Position,
    watermark_us: int | None,
    assumed: StreamControl,
    *,
    ended: bool = False,
) -> Commit:
    """Return a commit without events: the end of a source, or a range that could not be read.

    Args:
        stream_id: The stream.
        claim: The right to commit for the source.
        batch: The range that was passed over; None to say only that the source has ended.
        at: Where the source stands.
        watermark_us: Its watermark, unchanged.
        assumed: How far the stream is sealed, as the writer knows it.
        ended: Nothing will ever follow.
    """
    return Commit(
        stream_id=stream_id,
        source_id=claim.source_id,
        epoch=claim.epoch,
        begin=at.next_offset,
        end=at.next_offset if batch is None else batch.end,
        end_cursor=at.cursor if batch is None else batch.cursor_at(batch.end),
        watermark_us=watermark_us,
        assumed_control=assumed,
        scores=ScoreColumns.empty(),
        outliers=OutlierColumns.empty(),
        dead=DeadLetterColumns.empty() if batch is None else _dead_letter_columns(batch.dead_letters),
        gap_reason=None if batch is None else batch.skip_reason,
        parts=(),
        ended=ended,
    )


def _score_columns(scored: ScoredEvents) -> ScoreColumns:
    events = scored.events
    return ScoreColumns(
        offsets=events.offsets,
        times_us=events.times_us,
        energies=scored.energies,
        threshold_ids=scored.threshold_ids,
        keys=events.keys,
        ids=events.ids,
    )


def _outlier_columns(scored: ScoredEvents, features: tuple[str, ...]) -> OutlierColumns:
    chosen = np.flatnonzero(scored.is_outlier)
    if not len(chosen):
        return OutlierColumns.empty()
    events = scored.events
    return OutlierColumns(
        offsets=events.offsets[chosen],
        times_us=events.times_us[chosen],
        energies=scored.energies[chosen],
        threshold_ids=scored.threshold_ids[chosen],
        features=events.features[chosen],
        feature_names=features,
        keys=None if events.keys is None else [events.keys[i] for i in chosen],
        ids=None if events.ids is None else [events.ids[i] for i in chosen],
    )


def _dead_letter_columns(dead: DeadLetters) -> DeadLetterColumns:
    return DeadLetterColumns(
        offsets=dead.offsets,
        end_offsets=dead.end_offsets,
        reasons=dead.reasons,
        details=dead.details,
        payloads=dead.payloads,
    )
