"""Back-test over recorded events: each event is decoded and scored once and folded for every cell."""

import numpy as np
from numpy.typing import NDArray

from consumers.batch import DecodedBatch
from monitor.backtest.cells import GridCell
from monitor.pipeline.fold import BatchScorer, FoldedBatch, fold, join_batches
from monitor.pipeline.partition_buffer import COMMIT_EVENTS, is_unreadable_range
from monitor.pipeline.threshold_schedule import ThresholdSchedule
from monitor.statistics.drift_sums import MeasuredEvents
from monitor.statistics.part import Scale
from storage.control.records import StoredGap

Float32 = NDArray[np.float32]


class CachedScorer:
    """Scorer with a cache for the current batch, since every cell scores the same events.

    The energy of an event does not depend on the other events of its batch, so cells may split the batch differently.
    """

    def __init__(self, scores: BatchScorer) -> None:
        self._scorer = scores
        self._known: dict[tuple[int, bytes], MeasuredEvents] = {}

    def clear(self) -> None:
        """Clear the cache before the next batch."""
        self._known.clear()

    def measure(self, features: Float32, model_id: int) -> MeasuredEvents:
        """Return the energies and drift statistics of features (n, D) under a model."""
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
    """Data plane of one cell, with the events that are not folded yet.

    It follows the worker without its clock: it folds every event that can be folded. Events held back by the lead wait
    until the control plane has sealed and ticked as far as possible.
    """

    def __init__(self, cell: GridCell, scorer: BatchScorer) -> None:
        self._cell = cell
        self._scorer = scorer
        self._schedule = ThresholdSchedule.from_rows([])
        self._pending: DecodedBatch | None = None
        self._watermark_us: int | None = None
        self.flagged: list[NDArray[np.int64]] = []

    def add_batch(self, batch: DecodedBatch) -> None:
        """Fold the events that can be folded, then seal and judge."""
        if is_unreadable_range(batch):
            self._fold_pending(final=True)
            self._store_gap(batch)
            return
        self._pending = batch if self._pending is None else join_batches([self._pending, batch])
        self._fold_pending(final=False)

    def finish(self) -> None:
        """Fold the remaining events at the end of the file."""
        self._fold_pending(final=True)
        self._cell.memory.end_source()
        self._cell.run_due()

    def _fold_pending(self, *, final: bool) -> None:
        while self._pending is not None:
            folded = self._fold_batch(self._pending, final=final)
            is_full = len(self._pending.events) + len(self._pending.dead_letters) >= COMMIT_EVENTS
            if is_full and not folded.held_by_lead and folded.end == self._pending.begin:
                folded = self._fold_batch(self._pending, final=True)
            before = self._cell.memory.control
            self._store_folded(folded)
            unchanged = folded.end == self._pending.begin and self._cell.memory.control == before
            self._pending = folded.remaining
            if folded.remaining is not None and not folded.held_by_lead:
                return  # later events decide whether its times are stray
            if folded.remaining is not None and unchanged:
                raise RuntimeError(
                    f"offset {folded.end} waits for a seal that cannot happen: lead, window and ticks are inconsistent"
                )

    def _fold_batch(self, batch: DecodedBatch, *, final: bool) -> FoldedBatch:
        memory = self._cell.memory
        if not self._schedule.rows or memory.thresholds[-1].id != self._schedule.newest_id:
            self._schedule = ThresholdSchedule.from_rows(memory.schedule())
        return fold(
            batch,
            watermark_us=self._watermark_us,
            final=final,
            control=memory.control,
            schedule=self._schedule,
            rules=self._cell.rules,
            scorer=self._scorer,
        )

    def _store_folded(self, folded: FoldedBatch) -> None:
        self._watermark_us = folded.watermark_us
        self.flagged.append(folded.scored.events.offsets[folded.scored.is_outlier])
        self._cell.memory.add_parts(folded.parts, folded.watermark_us)
        self._cell.run_due()

    def _store_gap(self, batch: DecodedBatch) -> None:
        self._cell.memory.add_gap(
            StoredGap(
                id=batch.begin,
                topic=batch.partition.topic,
                partition=batch.partition.partition,
                from_offset=batch.begin,
                to_offset=batch.end,
                reason=batch.skip_reason or "",
            )
        )
