"""The control plane of a stream: judge, tick, seal, in the order of event time, until nothing is due.

Its decisions are pure functions of what is stored; this file fetches, calls them and stores. Any process may run it at
any time: the lease only saves work, and what keeps the result right are the locks and unique keys of the store.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from monitor.calibration import ThresholdRule, calibration_row, law_of, scale_of, tick_threshold
from monitor.judging import Calibrated, JudgeRule, judge
from monitor.keepers import CalibrationKeeper, ControlKeeper, ModelKeeper
from monitor.look_back import LARGEST_LEFT_OUT, LookBack, calibration_windows
from monitor.parts import decode
from monitor.schedule import tick_at_or_after
from monitor.sealing import pending_tick_of, seal_to
from storage.calibration import JudgedWindow, StoredThreshold, TickFacts

log = logging.getLogger(__name__)

Float32 = NDArray[np.float32]
_STEPS_BETWEEN_RENEWALS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """What the control plane of one stream goes by."""

    stream: str
    stream_id: int
    size_us: int
    grace_us: int
    refresh: timedelta | str
    threshold: ThresholdRule
    judge: JudgeRule


class ControlPlane:
    """Runs one stream; used by one thread."""

    def __init__(
        self,
        settings: ControlSettings,
        *,
        control: ControlKeeper,
        calibration: CalibrationKeeper,
        models: ModelKeeper,
        reference: Callable[[int], Float32],
        now_us: Callable[[], int],
        renew: Callable[[], bool],
        advanced: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._control = control
        self._calibration = calibration
        self._models = models
        self._reference = reference
        self._now_us = now_us
        self._renew = renew
        self._advanced = advanced
        self._known: dict[int, Calibrated] = {}
        self._look_back: _LookBackCache | None = None

    def run_due(self) -> bool:
        """Do everything that is due; return whether anything was.

        Stops early when the lease is lost.
        """
        moved = False
        while self._renew():
            if not (self._judge_due() or self._tick_due() or self._seal()):
                return moved
            moved = True
        return moved

    def _judge_due(self) -> bool:
        settings = self._settings
        starts = self._control.due_windows(settings.stream_id, limit=_STEPS_BETWEEN_RENEWALS)
        for start in starts:
            self._control.judge(
                settings.stream_id,
                settings.stream,
                start,
                lambda facts: judge(facts, self._calibrated, settings.judge, self._now_us()),
            )
        return bool(starts)

    def _seal(self) -> bool:
        settings = self._settings
        sealed = self._control.seal(
            settings.stream_id,
            lambda facts: seal_to(facts, settings.size_us, settings.grace_us, self._tick_at_or_after),
        )
        if sealed is None:
            return False
        self._advanced()
        return True

    def _tick_at_or_after(self, event_time_us: int) -> int:
        return tick_at_or_after(self._settings.refresh, event_time_us)

    def _tick_due(self) -> bool:
        """Store the tick that the judged windows call for, once everything before it is sealed and judged."""
        settings = self._settings
        facts = self._calibration.tick_facts(settings.stream_id)
        ended = pending_tick_of(facts)
        if ended is None or facts.sealed_until_us is None:
            return False
        tick_us = self._tick_at_or_after(ended)
        if facts.sealed_until_us < tick_us // settings.size_us * settings.size_us:
            return False
        if facts.first_part_end_us is not None and facts.first_part_end_us <= tick_us:
            return False  # sealed, and not judged yet: by another holder of the lease, a moment ago
        newest = self._calibration.newest(settings.stream_id)
        return newest is not None and self._tick(facts, newest, tick_us)

    def _tick(self, facts: TickFacts, newest: StoredThreshold, tick_us: int) -> bool:
        settings, rule = self._settings, self._settings.threshold
        reference = self._reference(newest.model_id)
        cache = self._cache_of(newest)
        clean = cache.refresh(self._calibration, tick_us, rule)
        first_us = -(-(tick_us + facts.lead_us) // settings.size_us) * settings.size_us
        row, law, share = tick_threshold(
            newest,
            cache.look_back,
            clean,
            reference,
            rule,
            tick_us=tick_us,
            valid_from_us=max(first_us, newest.valid_from_us),
        )
        fired = self._calibration.firings(settings.stream_id, ("spike",), tick_us - rule.look_back_us, tick_us)
        stored = self._calibration.tick(
            settings.stream_id,
            last_tick_us=facts.last_tick_us,
            tick_us=tick_us,
            threshold=row,
            calibration=calibration_row(tick_us, row, law, share, rule, fired),
        )
        if stored and (row.threshold != newest.threshold or row.method != newest.method):
            log.info(
                "Stream %s: the limit is now %.4g (%s, from %d energies), before it was %.4g.",
                settings.stream,
                row.threshold,
                row.method,
                row.n,
                newest.threshold,
                extra={"action": "threshold", "stream": settings.stream},
            )
        return stored

    def _cache_of(self, newest: StoredThreshold) -> "_LookBackCache":
        cache = self._look_back
        if cache is None or cache.model_id != newest.model_id:
            cache = self._look_back = _LookBackCache(self._settings.stream_id, newest)
        return cache

    def _calibrated(self, threshold_id: int) -> Calibrated:
        """Return a threshold row for judging; rows never change, so they are kept."""
        known = self._known.get(threshold_id)
        if known is None:
            row = self._calibration.threshold(threshold_id)
            version = next(m.version for m in self._models.list(self._settings.stream_id) if m.id == row.model_id)
            known = Calibrated(row=row, law=law_of(row.details), scale=scale_of(row.details), model_version=version)
            if len(self._known) > _STEPS_BETWEEN_RENEWALS:
                self._known.clear()
            self._known[threshold_id] = known
        return known


class _LookBackCache:
    """The look-back of one model over stored windows: what a tick added or left out is the only work of the next."""

    def __init__(self, stream_id: int, threshold: StoredThreshold) -> None:
        self.model_id = threshold.model_id
        self.look_back = LookBack(scale_of(threshold.details))
        self._stream_id = stream_id
        self._read_until_us: int | None = None
        self._windows: dict[int, JudgedWindow] = {}

    def refresh(self, store: CalibrationKeeper, tick_us: int, rule: ThresholdRule) -> list[int]:
        """Bring the look-back to a tick; return the starts of the clean windows in it, ascending.

        The limit may be drawn from some windows that fired (it survives outliers, and must not starve); the law of
        counts is learned from those that fired nothing.
        """
        begin_us = tick_us - rule.look_back_us
        after_us = begin_us if self._read_until_us is None else max(begin_us, self._read_until_us)
        for window in store.judged_windows(self._stream_id, self.model_id, after_us, tick_us):
            if window.events:
                self._windows[window.window_start_us] = window
        # A window that reaches over the tick has not been read.
        self._read_until_us = tick_us // rule.size_us * rule.size_us
        for start in [start for start in self._windows if start < begin_us]:
            del self._windows[start]
        windows = [self._windows[start] for start in sorted(self._windows)]
        counted = self._chosen(windows, tick_us, rule, LARGEST_LEFT_OUT)
        for gone in [start for start in self.look_back.windows if start not in counted]:
            self.look_back.evict(gone)
        for start in sorted(counted):
            if start not in self.look_back:
                self.look_back.add(start, decode(self._windows[start].payload))
        return sorted(self._chosen(windows, tick_us, rule, 1.0))

    def _chosen(
        self, windows: list[JudgedWindow], tick_us: int, rule: ThresholdRule, largest_left_out: float
    ) -> set[int]:
        counts = calibration_windows(
            np.array([window.window_start_us for window in windows], np.int64),
            np.array([window.window_end_us for window in windows], np.int64),
            [(window.window_start_us, window.window_end_us) for window in windows if window.fired],
            tick_us,
            look_back_us=rule.look_back_us,
            adopt_after_us=rule.adopt_after_us,
            largest_left_out=largest_left_out,
        )
        return {window.window_start_us for window, count in zip(windows, counts, strict=True) if count}
