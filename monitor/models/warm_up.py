"""Warm-up: fit a stream's first model on its own first events, without moving a position.

The partitions are paused meanwhile. The process that has the stream's lease reads with a separate source from the
stored positions; other processes wait for its model. Afterwards the events are scored once, as all others.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Protocol

from config.auto_sizes import has_auto, with_sizes
from config.errors import BrokerUnavailable, ModelError
from config.settings import StreamSettings
from config.sizing import PATIENCE, min_warm_up
from config.units import format_duration
from consumers.batch import Partition, Position
from consumers.source import Source
from monitor.models.first_sizes import SAMPLE_EVENTS, count_available, find_first_sizes
from monitor.models.fitting import describe_rejected, fit_model
from monitor.models.screening_text import describe_screening
from monitor.models.training_events import TrainingReader
from monitor.models.training_set import TrainingSet, min_training_events
from monitor.models.warm_up_progress import (
    CaughtUpRate,
    WarmUpRate,
    format_progress,
    format_rejection,
    to_rejected_records,
)
from monitor.thresholds.body import describe_heavy_tail
from monitor.thresholds.percentile import exceedance
from monitor.thresholds.tick import build_first_threshold
from storage.control.models import Activation, ModelRecord, NewModel
from storage.control.thresholds import ThresholdRow
from storage.control.warm_up import WarmUpProgress

log = logging.getLogger(__name__)

TIMEOUT_S = 3600.0
"""Maximum wait for all events. After it, the model is fitted as soon as there are enough events for a model."""

_REPORT_INTERVAL_S = 1.0
_LOG_INTERVAL_S = 30.0
_REMINDER_INTERVAL_S = 600.0
_MAX_WARNINGS = 20


class FirstModelStoreProtocol(Protocol):
    """Store of the first model; implemented by `storage.control.models.ModelStore` and the back-test."""

    def add(
        self,
        stream_id: int,
        model: NewModel,
        first_threshold: Callable[[int, Activation], ThresholdRow],
        *,
        only_first: bool = ...,
        sizes: Mapping[str, object] | None = ...,
    ) -> ModelRecord | None:
        """Store and activate a model; None if the stream already has one."""
        ...

    def report_warm_up(self, stream_id: int, progress: WarmUpProgress) -> None:
        """Store the progress of a warm-up."""
        ...


class WarmUp:
    """One attempt to fit the first model of a stream.

    Args:
        stream: The name of the stream.
        stream_id: Its number in the database.
        settings: Its settings.
        models: The store of the model.
        stop: Set to abort the warm-up.
        renew: Renews the lease of the stream; False if it is lost.
        note_problem: Called with the reason why the source cannot be read; None when it is read.
        timeout_s: Maximum wait for all events, in seconds.
        longest_look_back: A bound on a look-back that is `auto`.
    """

    def __init__(
        self,
        stream: str,
        stream_id: int,
        settings: StreamSettings,
        models: FirstModelStoreProtocol,
        *,
        stop: threading.Event,
        renew: Callable[[], bool],
        note_problem: Callable[[BrokerUnavailable | None], None] = lambda _problem: None,
        timeout_s: float = TIMEOUT_S,
        longest_look_back: timedelta = PATIENCE,
    ) -> None:
        self._stream = stream
        self._stream_id = stream_id
        self._settings = settings
        self._models = models
        self._stop = stop
        self._renew = renew
        self._note_problem = note_problem
        self._timeout_s = timeout_s
        self._longest_look_back = longest_look_back
        self._wanted = settings.model.warm_up
        self._reported_s = float("-inf")
        self._logged_s = float("-inf")
        self._rate = WarmUpRate()
        self._caught_up_rate = CaughtUpRate()
        self._warned: set[str] = set()
        self._logged_caught_up = False
        self._started_s = time.monotonic()
        self._lost_lease = False

    def run(
        self,
        source: Source,
        starts: Mapping[Partition, Position],
        *,
        assigned: frozenset[Partition] = frozenset(),
    ) -> ModelRecord | None:
        """Read, fit and store; None if stopped, if another process stored a model, or if the lease is lost.

        Args:
            source: A source used by the warm-up only, outside of any consumer group.
            starts: The stored positions.
            assigned: Partitions that the source has already reported as assigned, to an earlier attempt.

        Raises:
            StorageUnavailable: The database is unavailable. Nothing is stored; another attempt reads the same events.
            ModelError: The input has ended with too few events.
            ConfigError: No field of the events is a feature.
        """
        sizes: dict[str, Any] = {}
        if has_auto(self._settings):
            found = self._find_sizes(source, starts, assigned)
            if found is None:
                return None
            sizes, assigned = found, frozenset(starts)
        settings = with_sizes(self._settings, sizes)
        self._wanted = settings.model.warm_up
        reader = TrainingReader(source, settings, starts, wanted=self._wanted, assigned=assigned)
        training = self._read_training_set(reader)
        if training is None:
            return None
        if len(training) < min_training_events(len(training.names)):
            raise ModelError(
                f"stream {self._stream}: the input ended after {len(training):,} usable events, a model needs at least "
                f"{min_training_events(len(training.names)):,}: fit one with `outrider fit {self._stream} FILE`"
                f"{_describe_rejected(training)}"
            )
        fitted = fit_model(training, settings.model, progress=lambda *_: self._renew_lease())
        rule = settings.threshold
        stored = self._models.add(
            self._stream_id,
            fitted.new_model,
            lambda model_id, activation: build_first_threshold(
                fitted.reference, model_id, activation, rule.percentile, rule.method
            ),
            only_first=True,
            sizes=sizes,
        )
        if stored is not None:
            if sizes:
                self._log_sizes(sizes)
            log.info(
                "Stream %s: fitted %s on the first %s events; scoring starts from the first event.",
                self._stream,
                stored.kind,
                f"{len(training):,}",
                extra={"action": "warm_up", "stream": self._stream},
            )
            if stored.derived_fields:
                log.info(
                    "Stream %s: derived features: change and roughness of %s.",
                    self._stream,
                    ", ".join(stored.derived_fields),
                    extra={"action": "warm_up", "stream": self._stream},
                )
            screening = describe_screening(fitted, rule.percentile, rule.method)
            if screening is not None:
                log.info("Stream %s: %s.", self._stream, screening, extra={"action": "warm_up", "stream": self._stream})
            warning = describe_heavy_tail(fitted.reference, exceedance(rule.percentile))
            if warning is not None:
                log.warning(
                    "Stream %s: %s.", self._stream, warning, extra={"action": "warm_up", "stream": self._stream}
                )
        return stored

    def _find_sizes(
        self, source: Source, starts: Mapping[Partition, Position], assigned: frozenset[Partition]
    ) -> dict[str, Any] | None:
        """Return the values of the settings that are `auto`; None if stopped.

        The first events are read as soon as there are enough for a model, up to `SAMPLE_EVENTS`, and read again for the
        fit.
        """
        self._wanted = min_warm_up(1)
        sample = self._read_training_set(
            TrainingReader(source, self._settings, starts, wanted=self._wanted, assigned=assigned)
        )
        if sample is not None and not sample.exhausted:
            reader = TrainingReader(
                source,
                self._settings,
                starts,
                wanted=SAMPLE_EVENTS,
                features=sample.names,
                waits=False,
                assigned=frozenset(starts),
            )
            sample = reader.read(
                stop=self._should_stop, deadline_s=None, progress=lambda _: self._report_progress(reader)
            )
        if sample is None:
            return None
        available = count_available(self._settings, source.discover(), starts, sample)
        return find_first_sizes(self._settings, sample, available=available, longest_look_back=self._longest_look_back)

    def _log_sizes(self, sizes: Mapping[str, Any]) -> None:
        log.info(
            "Stream %s: the settings that are auto now have the values %s.",
            self._stream,
            ", ".join(f"{key} {value}" for key, value in sizes.items()),
            extra={"action": "warm_up", "stream": self._stream},
        )

    def _read_training_set(self, reader: TrainingReader) -> TrainingSet | None:
        """Return the events to fit on: the configured number; after the timeout, any number that is sufficient."""
        deadline_s = self._started_s + self._timeout_s
        reminded_s = float("-inf")
        while True:
            training = reader.read(
                stop=self._should_stop, deadline_s=deadline_s, progress=lambda _: self._report_progress(reader)
            )
            if training is None or training.exhausted or len(training) >= min_training_events(len(training.names)):
                return training
            if time.monotonic() - reminded_s >= _REMINDER_INTERVAL_S:
                self._log_missing_events(training, _count_usable(reader))
                reminded_s = time.monotonic()
            deadline_s = time.monotonic() + _REPORT_INTERVAL_S

    def _log_missing_events(self, training: TrainingSet, n: int) -> None:
        needed = min_training_events(len(training.names))
        log.warning(
            "Stream %s: %s after %s; a model needs at least %s, so %s are missing: waiting for them. "
            "`outrider fit %s FILE` fits one immediately on a file of events%s.",
            self._stream,
            f"{n:,} usable events" if n else "no usable event",
            format_duration(timedelta(seconds=round(self._timeout_s))),
            f"{needed:,}",
            f"{max(1, needed - n):,}",
            self._stream,
            _describe_rejected(training),
            extra={"action": "warm_up", "stream": self._stream},
        )

    def _should_stop(self) -> bool:
        self._renew_lease()
        return self._stop.is_set() or self._lost_lease

    def _renew_lease(self) -> None:
        self._lost_lease = self._lost_lease or not self._renew()

    def _report_progress(self, reader: TrainingReader) -> None:
        """Store the progress at most each second, for `status`.

        Log it at the start, when the end of the log is reached, and every 30 seconds.
        """
        self._note_problem(reader.unavailable)
        now_s = time.monotonic()
        if now_s - self._reported_s < _REPORT_INTERVAL_S:
            return
        self._reported_s = now_s
        progress = self._build_progress(reader, now_s)
        self._models.report_warm_up(self._stream_id, progress)
        self._warn_of_rejections(progress)
        has_just_caught_up = progress.caught_up and not self._logged_caught_up
        if now_s - self._logged_s < _LOG_INTERVAL_S and not has_just_caught_up:
            return
        self._logged_s = now_s
        self._logged_caught_up = self._logged_caught_up or progress.caught_up
        log.info(
            "Stream %s is %s.",
            self._stream,
            format_progress(progress),
            extra={
                "action": "warm_up",
                "stream": self._stream,
                "events": progress.events,
                "wanted": progress.wanted,
                "rejected": progress.rejected,
            },
        )
        if reader.unavailable is not None:
            log.warning(
                "Stream %s: %s.",
                self._stream,
                reader.unavailable,
                extra={"action": "warm_up", "stream": self._stream},
            )

    def _build_progress(self, reader: TrainingReader, now_s: float) -> WarmUpProgress:
        rejections = reader.rejections()
        n = _count_usable(reader)
        wanted = self._wanted
        left_s = self._rate.remaining_s(now_s, n, wanted)
        progress = WarmUpProgress(
            events=n,
            wanted=wanted,
            left_s=left_s,
            records=reader.n_records,
            rejected=rejections.n_rejected,
            rejections=to_rejected_records(rejections.groups()),
        )
        if n >= wanted or not reader.caught_up:
            return progress
        first_us = reader.first_record_us
        rate = self._caught_up_rate.events_per_s(now_s, n, None if first_us is None else time.time() - first_us / 1e6)
        if rate is None:
            return replace(progress, caught_up=True, left_s=None)
        left_s = (wanted - n) / rate
        needed = min_training_events(reader.n_features or 1)
        early_s = max(self._started_s + self._timeout_s - now_s, (needed - n) / rate, 0.0)
        return replace(
            progress,
            caught_up=True,
            left_s=left_s,
            events_per_s=rate,
            fits_early_in_s=early_s if early_s < left_s else None,
        )

    def _warn_of_rejections(self, progress: WarmUpProgress) -> None:
        """Log each kind of rejected records once, as soon as the first one is read."""
        for group in progress.rejections:
            subject = f"{group.reason} {group.hint}" if group.hint else group.reason
            if subject in self._warned or len(self._warned) >= _MAX_WARNINGS:
                continue
            self._warned.add(subject)
            log.warning(
                "Stream %s: %s of the first %s records cannot be used: %s. Correct the settings, or have the producer "
                "correct the records.",
                self._stream,
                f"{group.n:,}",
                f"{progress.records:,}",
                format_rejection(group),
                extra={"action": "warm_up", "stream": self._stream, "reason": group.reason, "rejected": group.n},
            )


def _count_usable(reader: TrainingReader) -> int:
    """Return the number of usable events read; until the features are known, of records not known to be rejected."""
    return reader.n_events if reader.knows_features else reader.n_records - reader.rejections().n_rejected


def _describe_rejected(training: TrainingSet) -> str:
    """Return the rejected records as the end of a sentence; an empty text without any."""
    return f"; {describe_rejected(training)}" if training.rejected else ""
