"""Heartbeats to receivers that raise an alarm when none arrives: they are sent only while every stream makes progress.

A process that is killed, frozen or cannot reach its database sends none. So the receiver must run elsewhere.
"""

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from config.heartbeats import HeartbeatSettings
from config.units import to_us
from monitor.health.stream_health import HealthState, StreamHealth
from monitor.notify.http_answer import user_agent
from monitor.notify.http_post import PostError, PostTarget, post
from storage.database.tables import HEALTH_REPORT_TTL_S

log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0


def find_obstacle(judged: Mapping[str, StreamHealth], judged_age_s: float) -> str | None:
    """Return why it is not proven that every stream makes progress; None if it is.

    Args:
        judged: The health of the streams of the process, by name.
        judged_age_s: Seconds since the process has stored its reports and judged its streams.
    """
    if not judged:
        return "no report of a stream is stored yet"
    if judged_age_s >= HEALTH_REPORT_TTL_S:
        return "no report of the streams could be stored"
    for name, health in judged.items():
        problem = health.first_obstacle
        if problem is not None:
            return f"stream {name} is {problem.state.replace('_', ' ')}: {problem.reason}"
        if health.state is HealthState.ENDED:
            return f"stream {name} has ended"
    return None


class Heartbeats:
    """Sends the heartbeats that are due; one thread at a time calls `check` every second.

    Each request has a thread of its own, so that a receiver that does not answer delays no other.

    Args:
        read_settings: Returns the present heartbeats.
        read_health: Returns the health of the streams, and the seconds since it was judged.
        clock: The monotonic clock, in seconds.
    """

    def __init__(
        self,
        read_settings: Callable[[], Sequence[HeartbeatSettings]],
        read_health: Callable[[], tuple[Mapping[str, StreamHealth], float]],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._read_settings = read_settings
        self._read_health = read_health
        self._clock = clock
        self._sent_s: dict[str, float] = {}
        self._in_flight: set[str] = set()
        self._failing: set[str] = set()
        self._obstacle: str | None = None

    def check(self) -> None:
        """Send the heartbeats that are due if every stream makes progress; log the reason when they are withheld."""
        settings = self._read_settings()
        if not settings:
            return
        judged, age_s = self._read_health()
        obstacle = find_obstacle(judged, age_s)
        self._log_change(obstacle)
        if obstacle is not None:
            return
        now_s = self._clock()
        for each in settings:
            is_due = now_s - self._sent_s.get(each.url, float("-inf")) >= to_us(each.every) / 1e6
            if is_due and each.url not in self._in_flight:
                self._sent_s[each.url] = now_s
                self._in_flight.add(each.url)
                threading.Thread(target=self._send, args=(each, len(judged)), name="heartbeat", daemon=True).start()

    def _log_change(self, obstacle: str | None) -> None:
        if obstacle is not None and obstacle != self._obstacle:
            log.warning("Heartbeats are withheld: %s.", obstacle, extra={"action": "heartbeat"})
        elif obstacle is None and self._obstacle is not None:
            log.warning("Heartbeats are sent again: every stream makes progress.", extra={"action": "heartbeat"})
        self._obstacle = obstacle

    def _send(self, settings: HeartbeatSettings, n_streams: int) -> None:
        body = json.dumps({"status": "ok", "streams": n_streams}).encode()
        headers = {"Content-Type": "application/json", "User-Agent": user_agent()}
        try:
            status = post(PostTarget.from_url(settings.url), body, headers, _TIMEOUT_S).status
            problem = None if 200 <= status < 300 else f"it answered {status}"
        except PostError as error:
            problem = str(error)
        finally:
            self._in_flight.discard(settings.url)
        if problem is None:
            self._failing.discard(settings.url)
        elif settings.url not in self._failing:  # the first of consecutive ones
            self._failing.add(settings.url)
            log.warning(
                "A heartbeat to %s was not accepted: %s; the next one is sent after its interval.",
                settings.target,
                problem,
                extra={"action": "heartbeat"},
            )
