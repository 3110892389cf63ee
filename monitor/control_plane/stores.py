"""What control plane and warm-up need of their stores: the database has it, and a back-test keeps it in memory."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from storage.control.drift import DriftBaseRow, DriftFacts, DriftUpdate, DriftWindow
from storage.control.evidence import Evidence
from storage.control.models import ModelInfo
from storage.control.records import (
    Incident,
    Judgement,
    OffsetRange,
    OpenWindow,
    SealFacts,
    WindowFacts,
)
from storage.control.thresholds import CalibrationRow, JudgedWindow, NewThreshold, StoredThreshold, TickFacts


class WindowStoreProtocol(Protocol):
    """Seals and judges, as `storage.control.windows.ControlStore` does."""

    def seal(self, stream_id: int, decide: Callable[[SealFacts], int | None]) -> int | None:
        """Move `sealed_until` to what `decide` says; return it, or None when nothing moved."""
        ...

    def due_windows(self, stream_id: int, limit: int = ...) -> list[int]:
        """Return the starts of sealed windows that have parts, in order."""
        ...

    def judge(
        self, stream_id: int, stream: str, window_start_us: int, decide: Callable[[WindowFacts], Judgement | None]
    ) -> bool:
        """Judge a sealed window; return whether this call stored something. `decide` says None to store nothing."""
        ...


class EarlyStoreProtocol(Protocol):
    """Tells and opens what an open window is already, as `storage.control.windows.ControlStore` does."""

    def first_open_window(self, stream_id: int) -> OpenWindow | None:
        """Return the window that begins where the seal ends, if it has events."""
        ...

    def open_incidents_early(
        self, stream_id: int, stream: str, window_start_us: int, decide: Callable[[WindowFacts], Sequence[Incident]]
    ) -> bool:
        """Store the incidents of a window that is not judged yet; return whether there were any."""
        ...


class EvidenceStoreProtocol(Protocol):
    """Looks up what explains a window, as `storage.control.evidence.EvidenceStore` does."""

    def find_evidence(self, ranges: Sequence[OffsetRange], start_us: int, end_us: int) -> Evidence:
        """Return the strangest events and the keys of a window."""
        ...


class ThresholdStoreProtocol(Protocol):
    """Reads windows and writes thresholds, as `storage.control.thresholds.CalibrationStore` does."""

    def tick_facts(self, stream_id: int) -> TickFacts:
        """Return where the stream stands with its ticks."""
        ...

    def threshold(self, threshold_id: int) -> StoredThreshold:
        """Return one threshold row."""
        ...

    def newest_threshold(self, stream_id: int) -> StoredThreshold | None:
        """Return the row that is valid last; None before the first model."""
        ...

    def judged_windows(self, stream_id: int, model_id: int, after_us: int, until_us: int) -> list[JudgedWindow]:
        """Return the judged windows of a model that start at or after `after_us` and end at or before `until_us`."""
        ...

    def store_tick(
        self,
        stream_id: int,
        *,
        last_tick_us: int | None,
        tick_us: int,
        threshold: NewThreshold | None,
        calibration: CalibrationRow | None,
        change: Callable[[Sequence[Incident]], Sequence[Incident]] = ...,
    ) -> bool:
        """Store what a tick computed, and what it makes of the open incidents; return whether it was ours to store."""
        ...

    def accepted_reference(self, model_id: int) -> NDArray[np.float32] | None:
        """Return the energies that a person last took for normal instead of the model's reference, ascending."""
        ...

    def count_firings(self, stream_id: int, kinds: Sequence[str], after_us: int, until_us: int) -> tuple[int, int]:
        """Return how many incidents of these kinds opened in (after, until], and over how many judged windows."""
        ...


class DriftStoreProtocol(Protocol):
    """Reads windows and writes verdicts on drift, as `storage.control.drift.DriftStore` does."""

    def drift_facts(self, stream_id: int, horizons_us: Sequence[int]) -> DriftFacts:
        """Return how far drift is judged, and what there is to judge."""
        ...

    def find_model_before(self, stream_id: int, before_us: int) -> tuple[int, int] | None:
        """Return the model of the last window that starts before a time, and since when it has been the schedule's."""
        ...

    def windows(self, stream_id: int, model_id: int, from_us: int, until_us: int) -> Iterable[DriftWindow]:
        """Yield the judged windows of a model that start in [from, until), in order."""
        ...

    def bases(self, stream_id: int, from_us: int) -> list[DriftBaseRow]:
        """Return the frozen bases that count from a time."""
        ...

    def store_update(self, stream_id: int, stream: str, before_us: int | None, step: DriftUpdate) -> bool:
        """Store a step; False when another one was stored since `before_us`."""
        ...


class ModelStoreProtocol(Protocol):
    """Lists models, as `storage.control.models.ModelStore` does."""

    def list(self, stream_id: int) -> list[ModelInfo]:
        """Return the models of a stream, oldest first."""
        ...
