"""The timetable: threshold ticks on event time, jobs on the wall clock. The only door to APScheduler."""

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
    """Return the first tick at or after an event time, in microseconds.

    Ticks of a duration are its multiples since 1970; a cron expression is read in UTC. A pure function of event
    time, so that a replay, a backlog and a back-test meet the same ticks.

    Raises:
        ConfigError: A cron line of a date that no calendar has, such as 30 February.
    """
    if isinstance(refresh, timedelta):
        step = to_us(refresh)
        return -(-event_time_us // step) * step
    at = _EPOCH + timedelta(microseconds=event_time_us)
    fires: datetime | None = _cron_trigger(refresh).get_next_fire_time(None, at)
    if fires is None:
        raise ConfigError(f"threshold.refresh: {refresh!r} never comes, there is no such date; try 0 0 * * *")
    return (fires - _EPOCH) // timedelta(microseconds=1)


@lru_cache(maxsize=64)
def _cron_trigger(text: str) -> CronTrigger:
    """Return the trigger of a cron line.

    APScheduler counts weekdays from Monday, knows no steps of names and refuses ranges that cron lines may have:
    it is given every field as a list of its values, the weekdays by name.
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
    """Return the values of one field of a cron line, ascending; the configuration has checked its form."""

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
    """Jobs on the wall clock. A job that fails keeps the old state, says why, and shows as its age.

    Each job runs at most once at a time, missed runs are coalesced into one, and the time of the last success is
    kept, so that a job that silently stopped succeeding can be seen.

    Args:
        clock: Seconds that only go forward.
        report: Takes the name of a job that ran, and why it failed or None. Successes in a row are reported once a
            minute.
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
        """Run `job` each `seconds`; the first time one interval from now."""
        self._last_success_s[name] = None
        self._intervals[name] = timedelta(seconds=seconds)

        def run() -> None:
            try:
                job()
            except OutriderError as error:
                self._report_failure(name, str(error))
            except Exception as error:
                log.exception(
                    "The job %s failed; it keeps its old state and runs again.", name, extra={"action": "job"}
                )
                self._report_failure(name, f"{type(error).__name__}: {error}")
            else:
                self._report_success(name)

        self._scheduler.add_job(run, "interval", seconds=seconds, id=name, name=name)

    def _report_failure(self, name: str, why: str) -> None:
        """Report a failure; a row of them is said once, since a job may run each second."""
        level = logging.DEBUG if name in self._failing else logging.WARNING
        self._failing.add(name)
        log.log(level, "The job %s failed: %s; it runs again.", name, why, extra={"action": "job", "job": name})
        self._reported_s.pop(name, None)
        self._report(name, why)

    def _report_success(self, name: str) -> None:
        self._failing.discard(name)
        now_s = self._last_success_s[name] = self._clock()
        if now_s - self._reported_s.get(name, float("-inf")) >= _REPORT_INTERVAL_S:
            self._reported_s[name] = now_s
            self._report(name, None)

    def reschedule(self) -> None:
        """Bring forward what lies further ahead than its interval: the clock was set back since it was planned.

        Else no job would run until the clock has caught up. To be called now and then.
        """
        now = datetime.now(UTC)
        for job in self._scheduler.get_jobs():
            interval = self._intervals[job.id]
            if job.next_run_time is not None and job.next_run_time > now + interval + _CLOCK_TOLERANCE:
                job.modify(next_run_time=now + interval)

    def start(self) -> None:
        """Start the jobs' threads."""
        self._scheduler.start()

    def stop(self) -> None:
        """Stop; a running job ends first."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)

    def success_ages_s(self) -> dict[str, float | None]:
        """Return the seconds since each job's last success; None before its first."""
        now = self._clock()
        return {name: None if at is None else now - at for name, at in self._last_success_s.items()}
