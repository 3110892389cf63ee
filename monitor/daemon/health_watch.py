"""The health watch: it stores the states of this process's streams, and decides on their incidents `stopped`."""

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from config.errors import StorageUnavailable
from config.stream_rules import StreamRules
from config.time_format import format_rough_duration, format_short_time
from monitor.daemon.stream_supervisor import StreamCondition, StreamSupervisor
from monitor.health.stream_health import StreamHealth, judge_streams
from monitor.incidents.stalled import HeldPartition, find_stalled, update_stalled_incident
from monitor.incidents.stopped import StreamStop, update_stopped_incident
from monitor.pipeline.outages import KAFKA
from storage.control.health import HELD_STATE, STREAM_COMPONENT, HealthReport, HealthStore
from storage.control.incidents import change_incidents
from storage.control.records import Incident
from storage.database.engine import Database
from storage.database.tables import HEALTH_REPORT_INTERVAL_S
from storage.queries.health import read_health_facts

log = logging.getLogger(__name__)

INTERVAL_S = 1.0

_STALLED_CHECK_S = 30.0
"""Interval at which a process without stalled partitions reads whether the incident `stalled` has to be resolved."""

_SINCE_TOLERANCE_US = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedHealth:
    """The health of the streams of a process, from all stored rows, after its reports were stored.

    Attributes:
        streams: The health of each stream.
        at_s: Time of the reports, on the monotonic clock.
    """

    streams: Mapping[str, StreamHealth]
    at_s: float


class HealthWatch:
    """Watches the streams of a process; one thread at a time calls `check` every second.

    Args:
        db: The database.
        streams: The streams, each with its rules.
        replica: Name of this process.
        clock: The monotonic clock, in seconds.

    Attributes:
        judged: The last judgement; None before the first reports.
    """

    def __init__(
        self,
        db: Database,
        streams: Sequence[tuple[StreamSupervisor, StreamRules]],
        *,
        replica: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._store = HealthStore(db)
        self._streams = streams
        self._replica = replica
        self._clock = clock
        self._ids: dict[str, int] = {}
        self._stored: Mapping[int, Sequence[HealthReport]] = {}
        self._stored_s = float("-inf")
        # An incident may be open since an earlier process.
        self._watched = {supervisor.name for supervisor, _ in streams}
        self._stalled: set[str] = set()
        self._stalled_checked_s: dict[str, float] = {}
        self._unavailable_since: tuple[float, int] | None = None
        self.judged: JudgedHealth | None = None

    def check(self) -> None:
        """Store changed reports, and open, repeat or resolve the incidents of kind `stopped`.

        Raises:
            StorageUnavailable: The database does not answer. The log names the time since when it has not.
        """
        try:
            self._check()
        except StorageUnavailable as error:
            self._note_unavailable(error)
            raise
        self._note_available()

    def close(self) -> None:
        """Decide once more, and delete the reports of this process; skip it while the database is unavailable."""
        try:
            self._check()
            self._store.replace_reports(self._replica, {})
        except StorageUnavailable as error:
            log.warning("%s; the health reports will expire.", error, extra={"action": "stop"})

    def _check(self) -> None:
        now_us, now_s = self._db.now_us(), self._clock()
        if len(self._ids) < len(self._streams):
            self._ids = self._store.find_streams([supervisor.name for supervisor, _ in self._streams])
        reports: dict[int, Sequence[HealthReport]] = {}
        for supervisor, rules in self._streams:
            stream_id = self._ids.get(supervisor.name)
            if stream_id is None:
                continue
            condition = supervisor.condition()
            since_us = functools.partial(_to_database_time, now_us=now_us, now_s=now_s)
            reports[stream_id] = keep_times(build_reports(condition, since_us), self._stored.get(stream_id, ()))
            self._update_incident(stream_id, condition, since_us, rules, now_us)
            self._update_stalled(stream_id, reports[stream_id], rules, now_us)
        if _states(reports) != _states(self._stored) or now_s - self._stored_s >= HEALTH_REPORT_INTERVAL_S:
            self._store.replace_reports(self._replica, reports)
            self._stored, self._stored_s = reports, now_s
            names = [supervisor.name for supervisor, _ in self._streams]
            self.judged = JudgedHealth(streams=judge_streams(read_health_facts(self._db, names)), at_s=now_s)

    def _update_incident(
        self,
        stream_id: int,
        condition: StreamCondition,
        since_us: Callable[[float], int],
        rules: StreamRules,
        now_us: int,
    ) -> None:
        """Update the incident `stopped` of a stream, which is read only while it may change."""
        stop = build_stop(condition, since_us)
        if stop is not None:
            self._watched.add(rules.stream)
        if rules.stream not in self._watched:
            return
        facts = self._store.stream_facts(stream_id, self._replica)

        def decide(incidents: Sequence[Incident]) -> list[Incident]:
            return update_stopped_incident(
                stop, incidents, facts.other_states, rules, now_us=now_us, has_recovered=condition.has_recovered
            )

        # Checked without a lock first: in nearly all cases there is nothing to write.
        if decide(facts.open_incidents):
            change_incidents(self._db, stream_id, rules.stream, decide)
        if condition.has_recovered:
            self._watched.discard(rules.stream)

    def _update_stalled(self, stream_id: int, reports: Sequence[HealthReport], rules: StreamRules, now_us: int) -> None:
        """Update the incident `stalled` of a stream, from the held partitions of all processes.

        The facts are read while a partition of this process has waited for long enough or the incident is open, and
        from time to time, since the process that has opened it may be gone.
        """
        own = [each for each in reports if each.state == HELD_STATE]
        is_stalled = any(now_us - each.since_us >= rules.stalled_after_us for each in own)
        now_s = self._clock()
        checked_s = self._stalled_checked_s.get(rules.stream, float("-inf"))
        if not (is_stalled or rules.stream in self._stalled or now_s - checked_s >= _STALLED_CHECK_S):
            return
        self._stalled_checked_s[rules.stream] = now_s
        others = self._store.held_partitions(stream_id, self._replica)
        held = [
            HeldPartition(
                partition=each.component.removeprefix("partition "), since_us=each.since_us, reason=each.reason or ""
            )
            for each in [*own, *others]
        ]
        incidents = self._store.stream_facts(stream_id, self._replica).open_incidents
        if update_stalled_incident(held, incidents, rules, now_us=now_us):
            change_incidents(
                self._db,
                stream_id,
                rules.stream,
                lambda open_incidents: update_stalled_incident(held, open_incidents, rules, now_us=now_us),
            )
        is_open = find_stalled(held, rules, now_us) is not None
        (self._stalled.add if is_open else self._stalled.discard)(rules.stream)

    def _note_unavailable(self, error: StorageUnavailable) -> None:
        """Log the beginning of an outage of the database once."""
        if self._unavailable_since is None:
            now_us = time.time_ns() // 1_000
            self._unavailable_since = (self._clock(), now_us)
            log.error(
                "The database has not answered since %s: %s. Nothing is stored meanwhile; the streams wait for it.",
                format_short_time(now_us),
                error,
                extra={"action": "database"},
            )

    def _note_available(self) -> None:
        if self._unavailable_since is not None:
            since_s, since_us = self._unavailable_since
            self._unavailable_since = None
            log.warning(
                "The database answers again; it had not for %s, since %s.",
                format_rough_duration(self._clock() - since_s),
                format_short_time(since_us),
                extra={"action": "database"},
            )


def build_reports(condition: StreamCondition, since_us: Callable[[float], int]) -> list[HealthReport]:
    """Return the reports of a stream: of the stream first, then of each part with a problem.

    Args:
        condition: The condition of the stream.
        since_us: Converts a time of the monotonic clock to the database's clock.
    """
    reports = [
        HealthReport(
            component=STREAM_COMPONENT,
            state=condition.state,
            since_us=since_us(condition.since_s),
            reason=condition.reason,
            lag_events=condition.lag_events,
            waiting_s=condition.waiting_s,
        )
    ]
    for outage in condition.outages:
        state = "unavailable" if outage.component == KAFKA else "missing"
        reports.append(
            HealthReport(
                component=outage.component, state=state, since_us=since_us(outage.since_s), reason=outage.reason
            )
        )
    held = [
        HealthReport(
            component=f"partition {each.partition}",
            state=HELD_STATE,
            since_us=since_us(each.since_s),
            reason=each.reason,
        )
        for each in condition.waiting
    ]
    return [*reports, *held]


def _states(reports: Mapping[int, Sequence[HealthReport]]) -> Mapping[int, Sequence[HealthReport]]:
    """Return the reports without the numbers that change all the time."""
    return {
        stream_id: [replace(each, lag_events=None, waiting_s=None) for each in of_stream]
        for stream_id, of_stream in reports.items()
    }


def keep_times(reports: Sequence[HealthReport], stored: Sequence[HealthReport]) -> list[HealthReport]:
    """Return the reports; those of the same state as stored ones keep their time, which the two clocks shift."""
    known = {each.component: each for each in stored}
    return [
        replace(each, since_us=before.since_us)
        if (before := known.get(each.component)) is not None
        and before.state == each.state
        and abs(before.since_us - each.since_us) <= _SINCE_TOLERANCE_US
        else each
        for each in reports
    ]


def build_stop(condition: StreamCondition, since_us: Callable[[float], int]) -> StreamStop | None:
    """Return the failure of a stream that cannot go on, or that has failed and is not well yet; None of any other."""
    if not (condition.is_stopped or condition.failures):
        return None
    since_s = condition.since_s if condition.failed_since_s is None else condition.failed_since_s
    return StreamStop(reason=condition.reason or "unknown", since_us=since_us(since_s), failures=condition.failures)


def _to_database_time(at_s: float, *, now_us: int, now_s: float) -> int:
    return now_us - int((now_s - at_s) * 1e6)
