"""The ledger columns of a folded batch."""

from dataclasses import replace

import numpy as np
import pytest

from consumers.batch import Partition, Position
from consumers.decoded_batch import DeadLetters, DecodedBatch, Events
from monitor.pipeline.commit import build_commit, build_position_commit, build_step_commit
from monitor.pipeline.fold import FoldedBatch, ScoredEvents
from monitor.pipeline.partition_buffer import BufferAdvance, PartitionBuffer
from monitor.pipeline.step import CommitBatch, CommitEnd, CommitStep, CommitUnreadableRange, RepeatWatermark
from storage.ledger.bulk import shortest_decimals
from storage.ledger.commit import StreamControl
from storage.ledger.sources import SourceClaim

NONE = np.empty(0, np.int64)
CLAIM = SourceClaim(source_id=3, epoch=5, next_offset=10, cursor=100, watermark_us=7)
CONTROL = StreamControl(sealed_until_us=1, revision=2, last_tick_us=None)
PARTITION = Partition(topic="t", partition=0)


def decoded(skip_reason: str | None = None) -> DecodedBatch:
    events = Events(
        offsets=np.array([10, 11, 13], np.int64),
        times_us=np.array([1, 2, 3], np.int64),
        features=np.array([[1, 2], [3, 4], [5, 6]], np.float32),
        keys=["a", None, "c"],
        ids=None,
    )
    return DecodedBatch(
        partition=PARTITION,
        begin=10,
        end=14,
        cursors=np.array([100, 110, 120, 130, 140], np.int64),
        events=events if skip_reason is None else events.slice(0, 0),
        dead_letters=DeadLetters(
            offsets=np.array([12]), end_offsets=np.array([13]), reasons=["empty"], details=["-"], payloads=[None]
        ),
        skip_reason=skip_reason,
    )


def folded(end: int = 14) -> FoldedBatch:
    batch = decoded()
    scored = ScoredEvents(
        events=batch.events,
        energies=np.array([1, 20, 30], np.float32),
        threshold_ids=np.array([7, 7, 8], np.int64),
        is_outlier=np.array([False, True, True]),
        is_late=np.array([False, False, True]),
    )
    return FoldedBatch(
        n_records=4,
        end=end,
        watermark_us=3,
        scored=scored,
        dead=batch.dead_letters,
        parts=[],
        shadow_parts=[],
        remaining=None,
        held_by_lead=False,
    )


def test_every_event_has_a_score_row_and_every_outlier_its_features() -> None:
    commit = build_commit(1, CLAIM, decoded(), folded(), CONTROL, ("x", "y"))
    assert (commit.source_id, commit.epoch, commit.begin, commit.end, commit.end_cursor) == (3, 5, 10, 14, 140)
    assert commit.scores.offsets.tolist() == [10, 11, 13]
    assert commit.scores.keys == ["a", None, "c"]
    assert commit.outliers.offsets.tolist() == [11, 13]
    assert [row.tolist() for row in commit.outliers.features] == [[3, 4], [5, 6]]
    assert (commit.outliers.keys, commit.outliers.ids) == ([None, "c"], None)
    assert commit.outliers.threshold_ids.tolist() == [7, 8]
    assert (commit.dead.offsets.tolist(), commit.assumed_control, commit.ended) == ([12], CONTROL, False)


def test_features_of_an_outlier_have_the_precision_of_its_model() -> None:
    batch = folded()
    exact = np.array([[1, 2], [0.1, 4], [0.1, 1e9 + 0.1]])
    events = replace(batch.scored.events, features=exact)
    scored = replace(batch.scored, events=events, needs_float64=np.array([False, False, True]))
    commit = build_commit(1, CLAIM, decoded(), replace(batch, scored=scored), CONTROL, ("x", "y"))
    assert [row.dtype for row in commit.outliers.features] == [np.float32, np.float64]
    assert [shortest_decimals(row) for row in commit.outliers.features] == [[0.1, 4.0], [0.1, 1000000000.1]]


def test_the_end_cursor_is_the_cursor_of_the_row_after_the_last_committed_one() -> None:
    assert build_commit(1, CLAIM, decoded(), folded(end=11), CONTROL, ("x", "y")).end_cursor == 110


def test_a_skipped_range_is_a_gap_of_its_length() -> None:
    at = Position(next_offset=10, cursor=100)
    commit = build_position_commit(1, CLAIM, decoded("retention"), at, 7, CONTROL)
    assert (commit.begin, commit.end, commit.end_cursor, commit.gap_reason) == (10, 14, 140, "retention")
    assert (len(commit.scores), commit.watermark_us, commit.ended) == (0, 7, False)


def test_the_end_of_a_source_changes_no_position() -> None:
    commit = build_position_commit(1, CLAIM, None, Position(next_offset=10, cursor=100), 7, CONTROL, ended=True)
    assert (commit.begin, commit.end, commit.end_cursor, commit.ended) == (10, 10, 100, True)
    assert (len(commit.scores), len(commit.dead), commit.gap_reason, commit.parts) == (0, 0, None, ())


ADVANCE = BufferAdvance(n_batches=1, n_records=4, n_events=3, position=Position(next_offset=14), watermark_us=3)


@pytest.mark.parametrize(
    ("step", "end", "n_scores", "gap_reason", "ended"),
    [
        (CommitBatch(batch=decoded(), folded=folded(), control=CONTROL, advance=ADVANCE), 14, 3, None, False),
        (
            CommitUnreadableRange(batch=decoded("retention"), control=CONTROL, advance=ADVANCE),
            14,
            0,
            "retention",
            False,
        ),
        (CommitEnd(control=CONTROL), 10, 0, None, True),
        (RepeatWatermark(control=CONTROL), 10, 0, None, False),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str | int | None) else None,
)
def test_every_commit_step_begins_at_the_stored_position_under_its_control_state(
    step: CommitStep, end: int, n_scores: int, gap_reason: str | None, ended: bool
) -> None:
    buffer = PartitionBuffer.from_claim(PARTITION, CLAIM, now_s=0.0)
    commit = build_step_commit(step, buffer, stream_id=1, features=("x", "y"))
    assert (commit.source_id, commit.epoch, commit.assumed_control) == (3, 5, CONTROL)
    assert (commit.begin, commit.end, len(commit.scores)) == (10, end, n_scores)
    assert (commit.gap_reason, commit.ended) == (gap_reason, ended)
