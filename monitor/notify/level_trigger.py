"""The repetition of the state of a level-triggered channel, by exactly one of the daemons of a database."""

import logging
import time
import uuid
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from config.errors import StorageUnavailable
from monitor.notify.channel import Channel
from monitor.notify.delivery import DeliveryResult, FailureReason
from monitor.notify.delivery_counts import DeliveryCounts
from storage.database.leases import Leases

log = logging.getLogger(__name__)

_LEASE_MARGIN_S = 20.0
_RENEWALS = 3


@runtime_checkable
class LevelChannel(Channel, Protocol):
    """A channel whose receiver forgets what is not sent again.

    The thread that sends its messages also repeats its state, so that an older state never follows a newer one.
    """

    interval_s: float

    def repeat(self, may_continue: Callable[[], bool]) -> list[DeliveryResult]:
        """Send the whole state; return the attempts that failed. `may_continue` is called before each request."""
        ...


class LevelTrigger:
    """The lease of a level-triggered channel, and the time of its next repetition; for one thread."""

    def __init__(self, name: str, channel: LevelChannel, leases: Leases, counts: DeliveryCounts) -> None:
        self._name = name
        self._channel = channel
        self._leases = leases
        self._counts = counts
        self._holder = uuid.uuid4().hex
        self._ttl_s = channel.timeout_s + _LEASE_MARGIN_S
        self._renew_at_s = 0.0
        self._repeat_at_s = 0.0
        self._has_failed = False

    @property
    def _lease(self) -> str:
        return f"notify/{self._name}"

    def hold(self) -> bool:
        """Take or renew the lease; return whether this process sends to the channel."""
        now_s = time.monotonic()
        if now_s < self._renew_at_s:
            return True
        # A lease that was not renewed in time may belong to another process: it repeats everything anew.
        is_held = self._leases.acquire(self._lease, self._holder, self._ttl_s)
        self._renew_at_s = now_s + self._ttl_s / _RENEWALS if is_held else 0.0
        if not is_held:
            self._repeat_at_s = 0.0
        return is_held

    def repeat_if_due(self) -> None:
        """Send the state of the channel if the interval is over; log and count failures."""
        now_s = time.monotonic()
        if now_s < self._repeat_at_s:
            return
        self._repeat_at_s = now_s + self._channel.interval_s
        failed = self._channel.repeat(self.hold)
        for each in failed:
            self._counts.count_failure(self._name, each.reason or FailureReason.UNKNOWN, is_given_up=False)
        if failed and not self._has_failed:
            log.warning(
                "Channel %s: the open incidents could not be sent again: %s; the next attempt is in %g s.",
                self._name,
                failed[0].detail,
                self._channel.interval_s,
                extra={"action": "notify", "channel": self._name},
            )
        self._has_failed = bool(failed)

    def release(self) -> None:
        """Release the lease, so that another process goes on at once."""
        try:
            self._leases.release(self._lease, self._holder)
        except StorageUnavailable as error:
            log.debug("the lease %s was not released: %s", self._lease, error)
