"""The timetable: threshold ticks on event time, jobs on the wall clock. The only door to APScheduler."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from config.units import to_us

log = logging.getLogger(__name__)
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def tick_at_or_after(refresh: timedelta | str, event_time_us: int) -> int:
    """Return the first tick at or after an event time, in microseconds.

    Ticks of a duration are its multiples since 1970; a cron expression is read in UTC. A pure function of event
    time, so that a replay, a backlog and a back-test meet the same ticks.
    """
    if isinstance(refresh, timedelta):
        step = to_us(refresh)
        return -(-event_time_us // step) * step
    at = _EPOCH + timedelta(microseconds=event_time_us)
    fires: datetime = _cron(refresh).get_next_fire_time(None, at)
    return (fires - _EPOCH) // timedelta(microseconds=1)


@lru_cache(maxsize=64)
def _cron(text: str) -> CronTrigger:
    """Return the trigger of a cron line; its weekdays count from Sunday, APScheduler's from Monday."""
    minute, hour, day, month, weekday = text.split()
    return CronTrigger(
        minute=minute, hour=hour, day=day, month=month, day_of_week=_weekdays(weekday), timezone=UTC
    )


def _weekdays(field: str) -> str:
    """Return a cron line's weekday field as a list of names; 0 and 7 are Sunday."""
    if not any(character.isdigit() for character in field.partition("/")[0]):
        return field
    days: list[str] = []
    for item in field.split(","):
        span, _, step = item.partition("/")
        first, _, last = span.partition("-")
        if not first.isdigit():
            days.append(item)
            continue
        end = int(last) if last else (6 if step else int(first))
        days += [_DAYS[number % 7] for number in range(int(first), end + 1, int(step or 1))]
    return ",".join(dict.fromkeys(days))


class Timetable:
    """Jobs on the wall clock. A job that fails keeps the old state, says why, and shows as its age.

    Each job runs at most once at a time, missed runs are coalesced into one, and the time of the last success is
    kept, so that a job that silently stopped succeeding can be seen.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(4)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._last_success_s: dict[str, float | None] = {}

    def every(self, seconds: float, name: str, job: Callable[[], object]) -> None:
        """Run `job` each `seconds`; the first time one interval from now."""
        self._last_success_s[name] = None

        def run() -> None:
            try:
                job()
            except Exception:
                log.exception(
                    "The job %s failed; it keeps its old state and runs again.", name, extra={"action": "job"}
                )
            else:
                self._last_success_s[name] = self._clock()

        self._scheduler.add_job(run, "interval", seconds=seconds, id=name)

    def start(self) -> None:
        """Start the jobs' threads."""
        self._scheduler.start()

    def stop(self) -> None:
        """Stop; a running job ends first."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)

    def ages_s(self) -> dict[str, float | None]:
        """Return the seconds since each job's last success; None before its first."""
        now = self._clock()
        return {name: None if at is None else now - at for name, at in self._last_success_s.items()}
