"""Threshold ticks on event time and periodic jobs on the wall clock. The only module that imports APScheduler."""

import logging
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from config.cron import WEEKDAY_NAMES, parse_cron
from config.errors import ConfigError, OutriderError
from config.units import to_us

log = logging.getLogger(__name__)
_REPORT_INTERVAL_S = 60.0
_CLOCK_TOLERANCE = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def tick_at_or_after(refresh: timedelta | str, event_time_us: int) -> int:
    """Return the first tick at or after an event time, in microseconds since 1970.

    The ticks of a duration are its multiples since 1970; a cron expression is read in UTC. The result depends on event
    time alone, so that a replay, a backlog and a back-test have the same ticks.

    Raises:
        ConfigError: The cron expression is not valid, such as one for 30 February only.
    """
    if isinstance(refresh, timedelta):
        step = to_us(refresh)
        return -(-event_time_us // step) * step
    at = _EPOCH + timedelta(microseconds=event_time_us)
    try:
        trigger = _cron_trigger(refresh)
    except ValueError as error:
        raise ConfigError(f"threshold.refresh: {error}") from error
    fires: datetime = trigger.get_next_fire_time(None, at)
    return (fires - _EPOCH) // timedelta(microseconds=1)


@lru_cache(maxsize=64)
def _cron_trigger(text: str) -> BaseTrigger:
    """Build the trigger of a cron expression.

    APScheduler counts weekdays from Monday, does not accept steps of names and rejects some valid ranges. Every
    field is therefore passed as a list of its values, with weekdays as names. APScheduler requires both day fields to
    match; an expression with two restricted day fields becomes two triggers, of which the earlier one applies.

    Raises:
        ValueError: As `config.cron.parse_cron`.
    """
    cron = parse_cron(text)
    times = {
        "minute": ",".join(map(str, cron.minutes)),
        "hour": ",".join(map(str, cron.hours)),
        "month": ",".join(map(str, cron.months)),
        "timezone": UTC,
    }
    days = {"day": ",".join(map(str, cron.days))}
    weekdays = {"day_of_week": ",".join(WEEKDAY_NAMES[number] for number in cron.weekdays)}
    if cron.either_day:
        return OrTrigger([CronTrigger(**times, **days), CronTrigger(**times, **weekdays)])
    return CronTrigger(**times, **days, **weekdays)


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
        self._failures: Counter[str] = Counter()
        self._durations_s: dict[str, float] = {}

    def add_job(self, seconds: float, name: str, job: Callable[[], object], *, first_s: float | None = None) -> None:
        """Run `job` every `seconds`; the first run is `first_s` seconds from now, by default one interval."""
        self._last_success_s[name] = None
        self._intervals[name] = timedelta(seconds=seconds)

        def run() -> None:
            started_s = self._clock()
            try:
                job()
            except OutriderError as error:
                self._report_failure(name, str(error))
            except Exception as error:
                log.exception("The job %s failed; it runs again after its interval.", name, extra={"action": "job"})
                self._report_failure(name, f"{type(error).__name__}: {error}")
            else:
                self._report_success(name)
            finally:
                self._durations_s[name] = self._clock() - started_s

        first = {} if first_s is None else {"next_run_time": datetime.now(UTC) + timedelta(seconds=first_s)}
        self._scheduler.add_job(run, "interval", seconds=seconds, id=name, name=name, **first)

    def _report_failure(self, name: str, why: str) -> None:
        """Report a failure. Only the first of consecutive ones is logged as a warning: a job may run every second."""
        level = logging.DEBUG if name in self._failing else logging.WARNING
        self._failing.add(name)
        self._failures[name] += 1
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
        """Bring forward jobs with a next run more than one interval ahead, after the clock was set back.

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

    def job_runs(self) -> dict[str, tuple[int, float | None]]:
        """Return the number of failures of each job, and the duration of its last run in seconds; None before it."""
        return {name: (self._failures[name], self._durations_s.get(name)) for name in self._intervals}
