"""Protocols of the stores of the control plane, implemented by the database and by the back-test in memory."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from monitor.incidents.explain import FeatureReasons
from monitor.models.scoring import LoadedModel
from storage.control.drift import DriftBaselineRow, DriftDayRow, DriftFacts, DriftModel, DriftUpdate, DriftWindow
from storage.control.drift_cells import FeatureSummaryRow
from storage.control.evidence import Evidence, WindowKeys
from storage.control.models import Activation
from storage.control.records import (
    Incident,
    Judgement,
    OffsetRange,
    OpenWindow,
    SealFacts,
    WindowFacts,
)
from storage.control.refits import FittedShadow, IncidentSpan, RefitRow
from storage.control.rollups import RolledWindow, RollupFacts, RollupRow
from storage.control.samples import StoredSample
from storage.control.shadows import MergedWindow, ShadowWindow
from storage.control.thresholds import CalibrationRow, JudgedWindow, ThresholdRow, TickFacts, WindowCounts


class WindowStoreProtocol(Protocol):
    """Seals and judgements: `storage.control.windows.WindowStore`."""

    def seal(self, stream_id: int, decide: Callable[[SealFacts], int | None]) -> int | None:
        """Set `sealed_until_us` to the result of `decide`; return it, or None if the seal did not move."""
        ...

    def due_windows(self, stream_id: int, limit: int = ...) -> list[int]:
        """Return the starts of the sealed windows that have parts, in order."""
        ...

    def read_window(self, stream_id: int, window_start_us: int) -> WindowFacts | None:
        """Return the facts of a window with stored parts; None without parts."""
        ...

    def store_judgement(self, stream_id: int, stream: str, facts: WindowFacts, judgement: Judgement) -> bool:
        """Store a judgement if its facts still hold; return whether it was stored."""
        ...

    def add_late_parts(self, stream_id: int, window_start_us: int) -> bool:
        """Add the late parts of a judged window to its counts; return whether there were any."""
        ...

    def first_open_window(self, stream_id: int) -> OpenWindow | None:
        """Return the window that starts at the seal, if it has events."""
        ...

    def open_outlier_parts(
        self, stream_id: int, window_start_us: int, known: Collection[int]
    ) -> list[tuple[int, bytes]]:
        """Return id and payload of the parts of a window with outliers, those with known ids left out."""
        ...

    def open_incidents_early(self, stream_id: int, stream: str, facts: WindowFacts, rows: Sequence[Incident]) -> bool:
        """Store the incidents of an open window if the facts still hold; return whether they were stored."""
        ...


class EvidenceStoreProtocol(Protocol):
    """Evidence of windows with an alarm: `storage.control.evidence.EvidenceStore`."""

    def find_evidence(self, ranges: Sequence[OffsetRange], start_us: int, end_us: int) -> Evidence:
        """Return the most anomalous events of a window and the counts of its keys."""
        ...


class KeyCountStoreProtocol(Protocol):
    """Events, outliers and largest energies by key: `storage.control.evidence.EvidenceStore`."""

    def count_keys(
        self, ranges: Sequence[OffsetRange], start_us: int, end_us: int, /, tracked: Sequence[str]
    ) -> WindowKeys:
        """Return the keys of a window that have outliers or are tracked."""
        ...


class ThresholdStoreProtocol(Protocol):
    """Thresholds and the windows that they are computed from: `storage.control.thresholds.ThresholdStore`."""

    def tick_facts(self, stream_id: int) -> TickFacts:
        """Return the facts that decide whether a tick is due."""
        ...

    def threshold(self, threshold_id: int) -> ThresholdRow:
        """Return one threshold row."""
        ...

    def newest_threshold(self, stream_id: int) -> ThresholdRow | None:
        """Return the threshold row with the latest start of validity; None before the first model."""
        ...

    def judged_windows(self, stream_id: int, model_id: int, after_us: int, until_us: int) -> list[JudgedWindow]:
        """Return the judged windows of a model that start at or after `after_us` and end at or before `until_us`."""
        ...

    def window_counts(self, stream_id: int, after_us: int, before_us: int) -> list[WindowCounts]:
        """Return the judged windows with events that start in [after_us, before_us), of all models, in order."""
        ...

    def store_tick(
        self,
        stream_id: int,
        *,
        last_tick_us: int | None,
        tick_us: int,
        threshold: ThresholdRow | None,
        calibration: CalibrationRow | None,
        change: Callable[[Sequence[Incident]], Sequence[Incident]] = ...,
        acceptances: int | None = ...,
    ) -> bool:
        """Store the rows of a tick and update the open incidents; return False if another tick was stored before."""
        ...

    def accepted_reference(self, model_id: int) -> NDArray[np.float32] | None:
        """Return the energies that a user last accepted as normal, ascending; None without any."""
        ...

    def count_firings(self, stream_id: int, kinds: Sequence[str], after_us: int, until_us: int) -> tuple[int, int]:
        """Return the numbers of incidents of these kinds opened in (after, until] and of the judged windows in it."""
        ...

    def count_verdicts(
        self, stream_id: int, kinds: Sequence[str], after_us: int, until_us: int
    ) -> Mapping[str | None, int]:
        """Return the number of incidents of these kinds opened in (after, until] by their verdict."""
        ...


class DriftStoreProtocol(Protocol):
    """Drift verdicts and the windows that they are computed from: `storage.control.drift.DriftStore`."""

    def drift_facts(self, stream_id: int, horizons_us: Sequence[int]) -> DriftFacts:
        """Return the time up to which drift is judged and the horizons that follow."""
        ...

    def find_model_before(self, stream_id: int, before_us: int) -> DriftModel | None:
        """Return the model of the last window that starts before a time; None if there is no such window."""
        ...

    def windows(self, stream_id: int, model_id: int, from_us: int, until_us: int) -> Iterable[DriftWindow]:
        """Yield the judged windows of a model that start in [from, until), in order."""
        ...

    def baselines(self, stream_id: int, from_us: int) -> list[DriftBaselineRow]:
        """Return the frozen baselines that begin at or after a time, in order."""
        ...

    def days(self, stream_id: int, base_from_us: int) -> list[DriftDayRow]:
        """Return the stored days since the start of a base, in order."""
        ...

    def spread_samples(self, stream_id: int, model_id: int, from_us: int, until_us: int) -> Sequence[StoredSample]:
        """Return the samples of the windows of a model that start in [from, until), evenly spread."""
        ...

    def base_summary(self, model_id: int, horizon_us: int, from_us: int) -> FeatureSummaryRow | None:
        """Return the distributions of the features in a frozen baseline; None without them."""
        ...

    def store_update(self, stream_id: int, stream: str, before_us: int | None, update: DriftUpdate) -> bool:
        """Store a step; return False if another step was stored since `before_us`."""
        ...


class RollupStoreProtocol(Protocol):
    """Roll-ups of judged windows: `storage.control.rollups.RollupStore`."""

    def rollup_facts(self, stream_id: int) -> RollupFacts:
        """Return the progress of the roll-ups of a stream."""
        ...

    def rolled_windows(self, stream_id: int, from_us: int, until_us: int) -> Iterable[list[RolledWindow]]:
        """Yield the windows that start in [from, until) in order, in lists."""
        ...

    def store_rollups(self, stream_id: int, rolled_up_us: int | None, until_us: int, rows: Sequence[RollupRow]) -> bool:
        """Store the roll-ups up to a time; return False if others were stored since `rolled_up_us`."""
        ...


class RefitStoreProtocol(Protocol):
    """Refits, samples of windows and shadow windows: `storage.control.refits.RefitStore`."""

    def last_refit(self, stream_id: int) -> RefitRow | None:
        """Return the refit with the latest due time; None before the first."""
        ...

    def find_incidents(self, stream_id: int, kinds: Sequence[str], after_us: int, until_us: int) -> list[IncidentSpan]:
        """Return the incidents that were open at some time in (after, until], as known at `until_us`."""
        ...

    def read_samples(self, stream_id: int, after_us: int, until_us: int) -> list[StoredSample]:
        """Return the samples of the windows that start at or after `after_us` and end at or before `until_us`."""
        ...

    def feature_names(self, stream_id: int) -> dict[int, tuple[str, ...]]:
        """Return the feature names of each model of a stream."""
        ...

    def has_other_shadow(self, stream_id: int) -> bool:
        """Return whether the stream has a shadow model that no refit has brought."""
        ...

    def begin(self, stream_id: int, last_due_us: int | None, row: RefitRow) -> bool:
        """Insert a refit; return False if another one was inserted since the last was read."""
        ...

    def finish(self, stream_id: int, row: RefitRow, fitted: FittedShadow) -> int | None:
        """Store the model of a refit as the shadow model; return its id, None if the refit is finished."""
        ...

    def fail(self, stream_id: int, row: RefitRow, state: Literal["failed", "skipped"], reason: str) -> bool:
        """Store that a refit brought no model; return False if it is finished."""
        ...

    def shadow_windows(self, stream_id: int, model_id: int) -> list[ShadowWindow]:
        """Return the judged windows that a shadow model scored, in order."""
        ...

    def merge_shadow_windows(self, stream_id: int, merge: Callable[[Sequence[bytes]], MergedWindow]) -> None:
        """Merge the shadow parts of all sealed windows."""
        ...

    def promote(
        self,
        stream_id: int,
        row: RefitRow,
        first_threshold: Callable[[int, Activation], ThresholdRow],
        verdict: Mapping[str, Any],
    ) -> bool:
        """Activate the model of a refit from the next free window on; return False if it is decided already."""
        ...

    def reject(self, stream_id: int, row: RefitRow, verdict: Mapping[str, Any]) -> bool:
        """End the shadow run of a refit; return False if it is decided already."""
        ...


class ModelsProtocol(Protocol):
    """The models of a stream: `monitor.control_plane.model_cache.ModelCache`."""

    def version(self, stream_id: int, model_id: int) -> int:
        """Return the version of a model, without loading it."""
        ...

    def load(self, model_id: int) -> LoadedModel:
        """Return a model, on the CPU."""
        ...

    def explain(self, model_id: int, events: Sequence[Mapping[str, float]]) -> Sequence[FeatureReasons]:
        """Return the contribution of each feature to the energies of events."""
        ...
