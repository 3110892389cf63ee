"""Ledger commits of the steps of a buffer: folded batches, and positions without events. Pure functions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from consumers.batch import Floats, Position
from consumers.decoded_batch import DeadLetters, DecodedBatch
from monitor.pipeline.fold import FoldedBatch, ScoredEvents
from monitor.pipeline.partition_buffer import PartitionBuffer
from monitor.pipeline.step import CommitBatch, CommitEnd, CommitStep, CommitUnreadableRange, RepeatWatermark
from storage.ledger.commit import Commit, DeadLetterColumns, OutlierColumns, ScoreColumns, StreamControl
from storage.ledger.sources import SourceClaim


def build_step_commit(
    step: CommitStep, buffer: PartitionBuffer, *, stream_id: int, features: tuple[str, ...]
) -> Commit:
    """Build the ledger commit of a step.

    Args:
        step: The next step of the buffer.
        buffer: The buffer, with its claim and stored position.
        stream_id: The stream.
        features: The names of the feature columns.
    """
    if isinstance(step, CommitBatch):
        commit = build_commit(stream_id, buffer.claim, step.batch, step.folded, step.control, features)
        if buffer.keyed is None or step.folded.key_states is None:
            return commit
        return replace(commit, key_state=buffer.keyed.describe_change(step.folded.key_states))
    batch, ended = None, False
    match step:
        case CommitUnreadableRange():
            batch = step.batch
        case CommitEnd():
            ended = True
        case RepeatWatermark():
            pass
        case other:
            assert_never(other)
    return build_position_commit(
        stream_id, buffer.claim, batch, buffer.position, buffer.watermark_us, step.control, ended=ended
    )


def build_commit(
    stream_id: int,
    claim: SourceClaim,
    batch: DecodedBatch,
    folded: FoldedBatch,
    control: StreamControl,
    features: tuple[str, ...],
) -> Commit:
    """Build the ledger commit of a folded batch.

    Args:
        stream_id: The stream.
        claim: The right to commit for the source.
        batch: The batch that was folded, from the source's stored position on.
        folded: The result of folding it.
        control: The stream's sealed time, revision and last tick under which the batch was folded. The ledger
            rejects the commit as stale if the stream has changed since.
        features: The names of the feature columns.
    """
    return Commit(
        stream_id=stream_id,
        source_id=claim.source_id,
        epoch=claim.epoch,
        begin=batch.begin,
        end=folded.end,
        end_cursor=batch.cursor_at(folded.end),
        watermark_us=folded.watermark_us,
        assumed_control=control,
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
    position: Position,
    watermark_us: int | None,
    control: StreamControl,
    *,
    ended: bool = False,
) -> Commit:
    """Build a commit without events: the end of a source, a repeated watermark or an unreadable range.

    Args:
        stream_id: The stream.
        claim: The right to commit for the source.
        batch: The range that was skipped; None to commit the position alone.
        position: The stored position of the source.
        watermark_us: The watermark of the source; it stays the same.
        control: The stream's sealed time, revision and last tick, as the worker last read them.
        ended: The source has ended: no further records follow.
    """
    return Commit(
        stream_id=stream_id,
        source_id=claim.source_id,
        epoch=claim.epoch,
        begin=position.next_offset,
        end=position.next_offset if batch is None else batch.end,
        end_cursor=position.cursor if batch is None else batch.cursor_at(batch.end),
        watermark_us=watermark_us,
        assumed_control=control,
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
        late=scored.is_late,
    )


def _outlier_columns(scored: ScoredEvents, features: tuple[str, ...]) -> OutlierColumns:
    rows = np.flatnonzero(scored.is_outlier)
    if not len(rows):
        return OutlierColumns.empty()
    events = scored.events
    return OutlierColumns(
        offsets=events.offsets[rows],
        times_us=events.times_us[rows],
        energies=scored.energies[rows],
        threshold_ids=scored.threshold_ids[rows],
        features=_features_as_scored(scored, rows, len(features)),
        feature_names=features,
        derived=_derived_features(scored, rows),
        keys=None if events.keys is None else [events.keys[i] for i in rows],
        ids=None if events.ids is None else [events.ids[i] for i in rows],
        trace_ids=None if events.trace_ids is None else [events.trace_ids[i] for i in rows],
    )


def _derived_features(scored: ScoredEvents, rows: NDArray[np.intp]) -> Sequence[tuple[tuple[str, ...], Floats]] | None:
    """Return names and values of the derived features of the events at `rows`, as their models took them."""
    if scored.event_models is None:
        return None
    found = []
    for row, model_id in zip(rows.tolist(), scored.event_models[rows].tolist(), strict=True):
        own = scored.derived.get(model_id)
        found.append(((), np.empty(0)) if own is None else (own.names, own.values[scored.model_rows[row]]))
    return found


def _features_as_scored(scored: ScoredEvents, rows: NDArray[np.intp], n_features: int) -> Sequence[Floats]:
    """Return the raw fields of the events at `rows`, each in the precision in which its model took them."""
    features = scored.events.features[rows, :n_features]
    rounded = features.astype(np.float32)
    if scored.needs_float64 is None:
        return list(rounded)
    exact = scored.needs_float64[rows].tolist()
    return [features[i] if is_exact else rounded[i] for i, is_exact in enumerate(exact)]


def _dead_letter_columns(dead_letters: DeadLetters) -> DeadLetterColumns:
    return DeadLetterColumns(
        offsets=dead_letters.offsets,
        end_offsets=dead_letters.end_offsets,
        reasons=dead_letters.reasons,
        details=dead_letters.details,
        payloads=dead_letters.payloads,
    )
