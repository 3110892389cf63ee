"""Numbers of deliveries of this process since its start, by channel. Written by sender threads, read by the scrape."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from monitor.notify.delivery import FailureReason


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryNumbers:
    """Delivered messages, failed attempts by channel and reason, messages given up, and failures of templates."""

    delivered: Mapping[str, int]
    failed: Mapping[tuple[str, str], int]
    dead: Mapping[str, int]
    template_failures: Mapping[str, int]


class DeliveryCounts:
    """Counts the results of attempts; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._delivered: Counter[str] = Counter()
        self._failed: Counter[tuple[str, str]] = Counter()
        self._dead: Counter[str] = Counter()
        self._template_failures: Counter[str] = Counter()

    def count_delivery(self, channel: str) -> None:
        """Count a delivered message."""
        with self._lock:
            self._delivered[channel] += 1

    def count_failure(self, channel: str, reason: FailureReason, *, is_given_up: bool) -> None:
        """Count a failed attempt."""
        with self._lock:
            self._failed[channel, reason.value] += 1
            self._dead[channel] += is_given_up

    def count_template_failure(self, channel: str) -> None:
        """Count a text that was replaced by the built-in one."""
        with self._lock:
            self._template_failures[channel] += 1

    def read(self) -> DeliveryNumbers:
        """Return the present numbers."""
        with self._lock:
            return DeliveryNumbers(
                delivered=dict(self._delivered),
                failed=dict(self._failed),
                dead=dict(self._dead),
                template_failures=dict(self._template_failures),
            )
