"""Back-test over recorded events: each event is decoded and scored once and folded for every cell."""

from dataclasses import replace
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from consumers.decoded_batch import DecodedBatch
from monitor.backtest.cells import GridCell
from monitor.pipeline.fold import BatchScorer
from monitor.pipeline.key_states import KeyedSource
from monitor.pipeline.partition_buffer import BufferState, PartitionBuffer
from monitor.pipeline.step import (
    CommitBatch,
    CommitEnd,
    CommitUnreadableRange,
    NothingDue,
    ReadThresholds,
    RepeatWatermark,
    Step,
    WaitForInput,
    WaitForLead,
    next_step,
)
from monitor.pipeline.threshold_schedule import ThresholdSchedule
from monitor.statistics.drift_sums import MeasuredEvents
from monitor.statistics.key_states import KeyStep
from monitor.statistics.part import Scale
from monitor.statistics.training_profile import Floats
from storage.control.records import StoredGap
from storage.ledger.sources import SourceClaim

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

    def measure(self, features: Floats, model_id: int) -> MeasuredEvents:
        """Return the energies and drift statistics of features (n, D) under a model."""
        key = (model_id, features.tobytes())
        if key not in self._known:
            self._known[key] = self._scorer.measure(features, model_id)
        return self._known[key]

    def energies(self, features: Floats, model_id: int) -> Float32:
        """Return the energies of features (n, D) under a model."""
        return self.measure(features, model_id).energies

    def scale(self, model_id: int) -> Scale:
        """Return the scale of the model's energies."""
        return self._scorer.scale(model_id)


class EventReplay:
    """Data plane of one cell, with the events that are not folded yet.

    It carries out the steps of the worker without its clock: each step as soon as possible. Events held back by the
    lead wait until the control plane has sealed and ticked as far as possible. With `derive` a model of the cell needs
    the history of keys.
    """

    def __init__(self, cell: GridCell, scorer: BatchScorer, derive: KeyStep | None = None) -> None:
        self._cell = cell
        self._derive = derive
        self._scorer = scorer
        self._schedule = ThresholdSchedule.from_rows([])
        self._buffer: PartitionBuffer | None = None
        self.flagged: list[NDArray[np.int64]] = []

    def add_batch(self, batch: DecodedBatch) -> None:
        """Fold the events that can be folded, then seal and judge."""
        if self._buffer is None:
            self._buffer = _open_buffer(batch)
            if self._derive is not None:
                self._buffer.set_keyed(KeyedSource.from_rows([], self._derive))
        self._buffer.add(batch, now_s=0.0)
        self._run_steps(self._buffer)

    def finish(self) -> None:
        """Fold the remaining events at the end of the file."""
        if self._buffer is not None:
            self._buffer.end()
            self._run_steps(self._buffer)
        self._cell.memory.end_source()
        self._cell.run_due()

    def _run_steps(self, buffer: PartitionBuffer) -> None:
        while True:
            step = self._next_step(buffer)
            match step:
                case CommitBatch():
                    self.flagged.append(step.folded.scored.events.offsets[step.folded.scored.is_outlier])
                    self._cell.memory.add_shadow_parts(step.folded.shadow_parts)
                    if self._cell.keys is not None:
                        self._cell.keys.add_events(step.folded.scored)
                    self._cell.memory.add_parts(step.folded.parts, step.folded.watermark_us)
                    self._cell.run_due()
                    buffer.apply_commit(step.advance, now_s=0.0)
                case CommitUnreadableRange():
                    self._cell.memory.add_gap(_build_gap(step.batch))
                    buffer.apply_commit(step.advance, now_s=0.0)
                case CommitEnd():
                    buffer.apply_stored_end()
                case WaitForLead() | WaitForInput():
                    buffer.apply_hold(step.hold, now_s=0.0)
                case RepeatWatermark() | NothingDue():
                    break
                case ReadThresholds():
                    raise RuntimeError("the schedule of a back-test holds every threshold row that it needs")
                case other:
                    assert_never(other)
        if buffer.state is BufferState.HELD_BY_LEAD:
            raise RuntimeError(
                f"offset {buffer.position.next_offset} waits for a seal that cannot happen: lead, window and ticks are "
                "inconsistent"
            )

    def _next_step(self, buffer: PartitionBuffer) -> Step:
        memory = self._cell.memory
        is_old = not self._schedule.rows or memory.thresholds[-1].id != self._schedule.newest_id
        if is_old or memory.shadows != self._schedule.shadows:
            self._schedule = replace(ThresholdSchedule.from_rows(memory.schedule()), shadows=memory.shadows)
        return next_step(
            buffer,
            memory.control,
            self._schedule,
            0.0,
            rules=self._cell.rules,
            scorer=self._scorer,
        )


def _open_buffer(first: DecodedBatch) -> PartitionBuffer:
    """Return a buffer that begins at the first batch of a file."""
    claim = SourceClaim(source_id=0, epoch=0, next_offset=first.begin, cursor=None, watermark_us=None)
    return PartitionBuffer.from_claim(first.partition, claim, now_s=0.0)


def _build_gap(batch: DecodedBatch) -> StoredGap:
    return StoredGap(
        id=batch.begin,
        topic=batch.partition.topic,
        partition=batch.partition.partition,
        from_offset=batch.begin,
        to_offset=batch.end,
        reason=batch.skip_reason or "",
    )
