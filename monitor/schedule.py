"""Threshold ticks on event time and periodic jobs on the wall clock. The only module that imports APScheduler."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from config.errors import ConfigError, OutriderError
from config.units import to_us

log = logging.getLogger(__name__)
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_REPORT_INTERVAL_S = 60.0
_CLOCK_TOLERANCE = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def tick_at_or_after(refresh: timedelta | str, event_time_us: int) -> int:
    """Return the first tick at or after an event time, in microseconds since 1970.

    The ticks of a duration are its multiples since 1970; a cron expression is read in UTC. The result depends on event
    time alone, so that a replay, a backlog and a back-test have the same ticks.

    Raises:
        ConfigError: The cron expression names a date that no calendar has, such as 30 February.
    """
    if isinstance(refresh, timedelta):
        step = to_us(refresh)
        return -(-event_time_us // step) * step
    at = _EPOCH + timedelta(microseconds=event_time_us)
    fires: datetime | None = _cron_trigger(refresh).get_next_fire_time(None, at)
    if fires is None:
        raise ConfigError(f"threshold.refresh: {refresh!r} names a date that does not exist; try 0 0 * * *")
    return (fires - _EPOCH) // timedelta(microseconds=1)


@lru_cache(maxsize=64)
def _cron_trigger(text: str) -> CronTrigger:
    """Return the trigger of a cron expression.

    APScheduler counts weekdays from Monday, has no steps of names and rejects some ranges of the cron syntax. So it is
    given each field as a list of values, the weekdays by name.
    """
    minute, hour, day, month, weekday = text.split()
    weekdays = _field_values(weekday, 0, 6, _WEEKDAYS, 0)
    return CronTrigger(
        minute=",".join(map(str, _field_values(minute, 0, 59))),
        hour=",".join(map(str, _field_values(hour, 0, 23))),
        day=",".join(map(str, _field_values(day, 1, 31))),
        month=",".join(map(str, _field_values(month, 1, 12, _MONTHS, 1))),
        day_of_week=",".join(dict.fromkeys(_WEEKDAYS[number % 7] for number in weekdays)),
        timezone=UTC,
    )


def _field_values(field: str, lowest: int, highest: int, names: tuple[str, ...] = (), first_name: int = 0) -> list[int]:
    """Return the values of one field of a cron expression, ascending; the configuration has checked the syntax."""

    def number(text: str) -> int:
        return names.index(text.lower()) + first_name if text.lower() in names else int(text)

    values: set[int] = set()
    for item in field.split(","):
        span, _, step = item.partition("/")
        begin, _, end = span.partition("-")
        first = lowest if span == "*" else number(begin)
        open_ended = span == "*" or (step and not end)
        last = highest if open_ended else number(end or begin)
        values |= set(range(first, max(first, last) + 1, int(step or 1)))
    return sorted(values)


class JobScheduler:
    """Periodic jobs on the wall clock.

    Each job runs at most once at a time, and missed runs are coalesced into one. A failed job runs again after its
    interval. The time of the last success shows a job that no longer succeeds.

    Args:
        clock: A monotonic clock, in seconds.
        report: Called with the name of a job that ran, and the error message or None. Successes in a row are reported
            once a minute.
    """

    def __init__(
        self, clock: Callable[[], float], report: Callable[[str, str | None], None] = lambda _name, _error: None
    ) -> None:
        self._clock = clock
        self._report = report
        self._reported_s: dict[str, float] = {}
        self._failing: set[str] = set()
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(4)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._last_success_s: dict[str, float | None] = {}
        self._intervals: dict[str, timedelta] = {}

    def add_job(self, seconds: float, name: str, job: Callable[[], object]) -> None:
        """Run `job` every `seconds`; the first run is one interval from now."""
        self._last_success_s[name] = None
        self._intervals[name] = timedelta(seconds=seconds)

        def run() -> None:
            try:
                job()
            except OutriderError as error:
                self._report_failure(name, str(error))
            except Exception as error:
                log.exception("The job %s failed; it runs again after its interval.", name, extra={"action": "job"})
                self._report_failure(name, f"{type(error).__name__}: {error}")
            else:
                self._report_success(name)

        self._scheduler.add_job(run, "interval", seconds=seconds, id=name, name=name)

    def _report_failure(self, name: str, why: str) -> None:
        """Report a failure; only the first of a row is logged as a warning, since a job may run every second."""
        level = logging.DEBUG if name in self._failing else logging.WARNING
        self._failing.add(name)
        log.log(
            level,
            "The job %s failed: %s; it runs again after its interval.",
            name,
            why,
            extra={"action": "job", "job": name},
        )
        self._reported_s.pop(name, None)
        self._report(name, why)

    def _report_success(self, name: str) -> None:
        self._failing.discard(name)
        now_s = self._last_success_s[name] = self._clock()
        if now_s - self._reported_s.get(name, float("-inf")) >= _REPORT_INTERVAL_S:
            self._reported_s[name] = now_s
            self._report(name, None)

    def reschedule(self) -> None:
        """Bring forward the jobs whose next run is more than one interval ahead: the clock was set back.

        Without it these jobs would not run until the clock has caught up. Call it regularly.
        """
        now = datetime.now(UTC)
        for job in self._scheduler.get_jobs():
            interval = self._intervals[job.id]
            if job.next_run_time is not None and job.next_run_time > now + interval + _CLOCK_TOLERANCE:
                job.modify(next_run_time=now + interval)

    def start(self) -> None:
        """Start the threads of the jobs."""
        self._scheduler.start()

    def stop(self) -> None:
        """Stop the jobs and wait for a running one."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)

    def success_ages_s(self) -> dict[str, float | None]:
        """Return the seconds since the last success of each job; None before its first."""
        now_s = self._clock()
        return {name: None if at is None else now_s - at for name, at in self._last_success_s.items()}
