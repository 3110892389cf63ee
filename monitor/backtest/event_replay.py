"""Back-test over recorded events: each is decoded and scored once, and folded for every cell of the grid."""

import numpy as np
from numpy.typing import NDArray

from consumers.batch import DecodedBatch
from monitor.backtest.cells import GridCell
from monitor.pipeline.fold import BatchScorer, FoldedBatch, ThresholdSchedule, WindowRule, fold, join_batches
from monitor.pipeline.partition_buffer import COMMIT_EVENTS, is_unreadable_range
from monitor.statistics.drift_sums import MeasuredEvents
from monitor.statistics.part import Scale
from storage.control.records import StoredGap

Float32 = NDArray[np.float32]


class CachedScorer:
    """The scorer, remembering what it scored of the piece in hand: every cell asks for the same events.

    Energies do not depend on what an event was batched with, so a piece that a cell cuts elsewhere changes nothing.
    """

    def __init__(self, scores: BatchScorer) -> None:
        self._scorer = scores
        self._known: dict[tuple[int, bytes], MeasuredEvents] = {}

    def clear(self) -> None:
        """Forget the piece in hand."""
        self._known.clear()

    def measure(self, features: Float32, model_id: int) -> MeasuredEvents:
        """Return the energies of features (n, D) under a model, and what drift adds up of them."""
        key = (model_id, features.tobytes())
        if key not in self._known:
            self._known[key] = self._scorer.measure(features, model_id)
        return self._known[key]

    def energies(self, features: Float32, model_id: int) -> Float32:
        """Return the energies of features (n, D) under a model."""
        return self.measure(features, model_id).energies

    def scale(self, model_id: int) -> Scale:
        """Return the scale of the model's energies."""
        return self._scorer.scale(model_id)


class EventReplay:
    """The data plane of one cell: what it has taken of the file and not folded yet.

    It goes the worker's way without its clock: whatever can be folded is, and what lead holds back waits until the
    control plane has sealed and ticked as far as it can.
    """

    def __init__(self, cell: GridCell, rule: WindowRule, scores: BatchScorer) -> None:
        self._cell = cell
        self._rule = rule
        self._scorer = scores
        self._schedule = ThresholdSchedule.from_rows([])
        self._pending: DecodedBatch | None = None
        self._watermark_us: int | None = None
        self.flagged: list[NDArray[np.int64]] = []

    def add_batch(self, piece: DecodedBatch) -> None:
        """Fold what a piece allows, and judge what it seals."""
        if is_unreadable_range(piece):
            self._fold_pending(final=True)
            self._store_gap(piece)
            return
        self._pending = piece if self._pending is None else join_batches([self._pending, piece])
        self._fold_pending(final=False)

    def finish(self) -> None:
        """Fold the rest; nothing follows it."""
        self._fold_pending(final=True)
        self._cell.memory.end_source()
        self._cell.run_due()

    def _fold_pending(self, *, final: bool) -> None:
        while self._pending is not None:
            folded = self._fold_batch(self._pending, final=final)
            crowded = len(self._pending.events) + len(self._pending.dead_letters) >= COMMIT_EVENTS
            if crowded and not folded.held_by_lead and folded.end == self._pending.begin:
                folded = self._fold_batch(self._pending, final=True)
            before = self._cell.memory.control
            self._store_folded(folded)
            stands_still = folded.end == self._pending.begin and self._cell.memory.control == before
            self._pending = folded.remaining
            if folded.remaining is not None and not folded.held_by_lead:
                return  # the events behind it will tell whether its times are stray
            if folded.remaining is not None and stands_still:
                raise RuntimeError(
                    f"offset {folded.end} waits for a seal that never comes: lead, window and ticks differ"
                )

    def _fold_batch(self, piece: DecodedBatch, *, final: bool) -> FoldedBatch:
        memory = self._cell.memory
        if not self._schedule.rows or memory.thresholds[-1].id != self._schedule.newest_id:
            self._schedule = ThresholdSchedule.from_rows(memory.schedule())
        return fold(
            piece,
            watermark_us=self._watermark_us,
            final=final,
            control=memory.control,
            schedule=self._schedule,
            rule=self._rule,
            scorer=self._scorer,
        )

    def _store_folded(self, folded: FoldedBatch) -> None:
        self._watermark_us = folded.watermark_us
        self.flagged.append(folded.scored.events.offsets[folded.scored.is_outlier])
        self._cell.memory.add_parts(folded.parts, folded.watermark_us)
        self._cell.run_due()

    def _store_gap(self, piece: DecodedBatch) -> None:
        self._cell.memory.add_gap(
            StoredGap(
                id=piece.begin,
                topic=piece.partition.topic,
                partition=piece.partition.partition,
                from_offset=piece.begin,
                to_offset=piece.end,
                reason=piece.skip_reason or "",
            )
        )
