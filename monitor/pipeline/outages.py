"""The outages that the threads of a stream observe, such as brokers that do not answer."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from config.errors import BrokerUnavailable, TopicMissing

KAFKA = "kafka"
TOPIC = "topic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A part that does not answer; `since_s` is on the monotonic clock."""

    component: str
    reason: str
    since_s: float


class Outages:
    """The present outages of a stream, with the time at which each began. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._outages: dict[str, Outage] = {}

    def update(self, problem: BrokerUnavailable | None) -> None:
        """Record why the source cannot be read, or None if it can. The first report of an outage is its beginning."""
        if problem is None:
            with self._lock:
                self._outages = {}
            return
        component = TOPIC if isinstance(problem, TopicMissing) else KAFKA
        with self._lock:
            before = self._outages.get(component)
            since_s = self._clock() if before is None else before.since_s
            # An answer about a missing topic is an answer.
            self._outages = {component: Outage(component=component, reason=str(problem), since_s=since_s)}

    def current(self) -> tuple[Outage, ...]:
        """Return the present outages."""
        with self._lock:
            return tuple(self._outages.values())
