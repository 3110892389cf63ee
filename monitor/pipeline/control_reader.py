"""The control state, settings, threshold schedule and shadow models of a stream, as the worker last read them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from config.stream_rules import StreamRules
from consumers.codec import Codec
from consumers.windows import NO_WATERMARK_US
from monitor.pipeline.retry import StorageRetry
from monitor.pipeline.threshold_schedule import ThresholdSchedule
from storage.control.shadows import ShadowStore
from storage.ledger.commit import StreamControl
from storage.ledger.ledger import Ledger
from storage.ledger.schedule import ScheduledThreshold

_READ_INTERVAL_S = 0.5
"""Interval at which the control state is read while the lead holds records back."""

_MAX_SINGLE_READS = 20
"""Late windows of a batch up to this number cost one indexed read of a threshold row each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """The settings that a worker follows: the rules over event time, and the codec of all records.

    `codec` is the same object as long as the settings of the decoding do not change.
    """

    rules: StreamRules
    codec: Codec


class ControlReader:
    """Reads the control state of a stream, and after it the settings, thresholds and shadow models that it names.

    Attributes:
        control: The control state that was read last; its revision is -1 before the first read.
        settings: The settings, as new as `control` or newer.
        schedule: The threshold rows, as new as `control` or newer.
        derives: Whether a stored model derives features from the history of keys, as new as `control` or newer.
    """

    def __init__(
        self,
        stream_id: int,
        ledger: Ledger,
        shadows: ShadowStore,
        retry: StorageRetry,
        settings: WorkerSettings,
        *,
        read_settings: Callable[[], WorkerSettings] | None = None,
        read_derives: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stream_id = stream_id
        self._ledger = ledger
        self._shadows = shadows
        self._retry = retry
        self._read_settings = read_settings
        self._read_derives = read_derives
        self._read_s = float("-inf")
        self.settings = settings
        self.derives = False
        self.control = StreamControl(sealed_until_us=None, revision=-1, last_tick_us=None)
        self.schedule = ThresholdSchedule.from_rows([])

    @property
    def never_read(self) -> bool:
        """Return whether the control state was never read."""
        return self.control.revision < 0

    @property
    def next_read_s(self) -> float:
        """Return the earliest time of the next read, on the monotonic clock."""
        return self._read_s + _READ_INTERVAL_S

    def invalidate(self) -> None:
        """Let the next `refresh` read the control state."""
        self._read_s = float("-inf")

    def refresh(self, now_s: float) -> None:
        """Read the control state if the last read is older than the read interval."""
        if now_s >= self.next_read_s:
            self.apply(self._retry.retry_until_answered(lambda: self._ledger.read_control(self._stream_id)))
            self._read_s = now_s

    def apply(self, control: StreamControl) -> None:
        """Set the control state; read new settings and thresholds after it, so that they are as new or newer."""
        before = self.control
        if control.settings_revision != before.settings_revision and self._read_settings is not None:
            self.settings = self._retry.retry_until_answered(self._read_settings)
        if control.revision != before.revision:
            # The sealed windows need no row, apart from late events. Retention may have deleted rows, so that the
            # schedule is read again.
            rows = self._read_rows(from_us=control.sealed_until_us)
            shadows = self._retry.retry_until_answered(lambda: self._shadows.read_scheduled(self._stream_id))
            complete_from_us = NO_WATERMARK_US if control.sealed_until_us is None or not rows else rows[0].valid_from_us
            schedule = ThresholdSchedule.from_rows(rows, complete_from_us=complete_from_us)
            self.schedule = replace(schedule, shadows=tuple(shadows))
            self.derives = self._retry.retry_until_answered(self._read_derives)
        elif control.last_tick_us != before.last_tick_us:
            # A new row is never valid earlier than the last one; the bound lets the read use the index.
            last_us = self.schedule.rows[-1].valid_from_us if self.schedule.rows else None
            rows = self._read_rows(after_id=self.schedule.newest_id, from_us=last_us)
            self.schedule = self.schedule.extend(rows, sealed_until_us=control.sealed_until_us)
        self.control = control

    def read_schedule_for(self, window_starts_us: Sequence[int]) -> ThresholdSchedule:
        """Return the schedule with the rows of windows before it, which late events of one batch need.

        Many windows cost one read of all rows since the earliest of them, which are kept until the next tick.

        Args:
            window_starts_us: The starts of the windows, at least one, ascending.
        """
        schedule = self.schedule
        if len(window_starts_us) > _MAX_SINGLE_READS:
            rows = self._read_rows(from_us=window_starts_us[0])
            complete = ThresholdSchedule.from_rows(rows, complete_from_us=window_starts_us[0])
            self.schedule = replace(complete, shadows=schedule.shadows)
            return self.schedule
        rows = self._retry.retry_until_answered(
            lambda: self._ledger.read_thresholds_at(self._stream_id, window_starts_us)
        )
        return schedule.with_rows(rows)

    def _read_rows(self, *, after_id: int = 0, from_us: int | None = None) -> list[ScheduledThreshold]:
        return self._retry.retry_until_answered(
            lambda: self._ledger.read_threshold_schedule(self._stream_id, after_id=after_id, from_us=from_us)
        )
