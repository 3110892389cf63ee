"""Threads that send due messages from the outbox to their channels.

Each channel has its own threads, so that a channel that hangs delays neither the other channels nor scoring.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from config.errors import StorageUnavailable
from config.settings import Settings
from config.units import to_us
from monitor.notify.backoff import next_attempt_us
from monitor.notify.channel import Channel, ClosableChannel, GroupChannel
from monitor.notify.channels import build_channels, log_template_failure
from monitor.notify.delivery import DeliveryResult, FailureReason, retry
from monitor.notify.delivery_counts import DeliveryCounts
from monitor.notify.level_trigger import LevelChannel, LevelTrigger
from storage.control.outbox import Message, Outbox
from storage.database.leases import Leases

log = logging.getLogger(__name__)

_POLL_INTERVAL_S = 1.0
_LEASE_MARGIN_S = 5.0
_RECORD_RETRY_INTERVAL_S = 0.5
_RECORD_TIMEOUT_S = 60.0


def deliver_next(outbox: Outbox, name: str, channel: Channel, deadline_us: int) -> bool:
    """Send the next due message of a channel and record the result; return whether there was one.

    The message is claimed for slightly longer than sending may take. If the process dies in that time, the message may
    have been sent; it is sent again, under the same id, when the claim has expired.
    """
    messages = claim_messages(outbox, name, channel)
    if not messages:
        return False
    record_result(outbox, messages, send_messages(channel, messages), deadline_us, DeliveryCounts())
    return True


def claim_messages(outbox: Outbox, name: str, channel: Channel) -> list[Message]:
    """Claim the next due message of a channel, with those that are sent together with it."""
    if isinstance(channel, GroupChannel) and channel.group_wait_us:
        return outbox.claim_group(
            name, claim_duration_us(channel), wait_us=channel.group_wait_us, max_messages=channel.max_group
        )
    message = outbox.claim(name, claim_duration_us(channel))
    return [] if message is None else [message]


def claim_duration_us(channel: Channel) -> int:
    """Return the duration for which a message of the channel is claimed, in microseconds."""
    return int((channel.timeout_s + _LEASE_MARGIN_S) * 1e6)


def send_messages(channel: Channel, messages: Sequence[Message]) -> DeliveryResult:
    """Send a message, or several as one; an exception of the channel becomes a result that is retried."""
    message = messages[0]
    try:
        if len(messages) > 1 and isinstance(channel, GroupChannel):
            return channel.send_group(messages)
        return channel.send(message)
    except Exception as error:
        log.exception(
            "Channel %s failed unexpectedly.", message.channel, extra={"action": "notify", "channel": message.channel}
        )
        return retry(FailureReason.UNKNOWN, f"unexpected {type(error).__name__}")


def record_result(
    outbox: Outbox, messages: Sequence[Message], result: DeliveryResult, deadline_us: int, counts: DeliveryCounts
) -> None:
    """Record the result of an attempt, in one transaction: the messages are delivered, due again later, or given up."""
    message, *others = messages
    if result.outcome == "delivered":
        outbox.mark_delivered(*messages)
        for each in messages:
            counts.count_delivery(each.channel)
        return

    def decide(now_us: int) -> int | None:
        if result.outcome == "refused":
            return None
        return next_attempt_us(
            message.id,
            message.attempt,
            now_us=now_us,
            created_at_us=message.created_at_us,
            deadline_us=deadline_us,
            wait_us=None if result.retry_after_s is None else int(result.retry_after_s * 1e6),
        )

    reason = result.reason or FailureReason.UNKNOWN
    wait_us = outbox.mark_failed(message, result.detail, decide, reason=reason.value, others=others)
    for each in messages:
        counts.count_failure(each.channel, reason, is_given_up=wait_us is None)
    _log_failure(message, result, wait_us)


def _log_failure(message: Message, result: DeliveryResult, wait_us: int | None) -> None:
    """Log a failed attempt: as an error if the message is given up, as a warning if it is the first."""
    consequence = "it is given up" if wait_us is None else f"the next attempt is in {wait_us / 1e6:.0f} s"
    level = logging.WARNING if message.attempt == 1 else logging.INFO
    log.log(
        logging.ERROR if wait_us is None else level,
        "Channel %s: %s of incident %d was not delivered (attempt %d): %s; %s.",
        message.channel,
        message.transition,
        message.incident_id,
        message.attempt,
        result.detail,
        consequence,
        extra={
            "action": "notify",
            "channel": message.channel,
            "notification": message.id,
            "incident": message.incident_id,
            "attempt": message.attempt,
            "reason": result.reason,
        },
    )


class NotificationSender:
    """The sending threads of all channels, from `start` to `stop`."""

    def __init__(
        self,
        outbox: Outbox,
        channels: Mapping[str, Channel],
        *,
        deadline_us: int,
        counts: DeliveryCounts | None = None,
    ) -> None:
        counts = counts or DeliveryCounts()
        self._senders = [
            _ChannelSender(outbox, name, channel, deadline_us, counts) for name, channel in channels.items()
        ]

    @classmethod
    def from_settings(
        cls, settings: Settings, outbox: Outbox, counts: DeliveryCounts | None = None
    ) -> "NotificationSender":
        """Build the sender of the configured channels."""
        counts = counts or DeliveryCounts()

        def on_template_failure(channel: str, cause: str) -> None:
            log_template_failure(channel, cause)
            counts.count_template_failure(channel)

        return cls(
            outbox,
            build_channels(settings, outbox.database, on_template_failure),
            deadline_us=to_us(settings.notify.deadline),
            counts=counts,
        )

    def start(self) -> None:
        """Start a thread for each channel."""
        for sender in self._senders:
            sender.start()

    def stop(self, within_s: float) -> None:
        """Send due messages once more, then stop; leave messages that take longer than `within_s` to the next run."""
        until_s = time.monotonic() + within_s
        for sender in self._senders:
            sender.request_stop()
        for sender in self._senders:
            sender.join_threads(until_s)
        for sender in self._senders:
            sender.abandon()


class _ChannelSender:
    """The threads of one channel: a main thread, and helpers while messages are due."""

    def __init__(self, outbox: Outbox, name: str, channel: Channel, deadline_us: int, counts: DeliveryCounts) -> None:
        self._outbox = outbox
        self._name = name
        self._channel = channel
        self._deadline_us = deadline_us
        self._counts = counts
        self._level = (
            LevelTrigger(name, channel, Leases(outbox.database), counts) if isinstance(channel, LevelChannel) else None
        )
        self._stopping = threading.Event()
        self._abandoned = threading.Event()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()

    def start(self) -> None:
        self._start_thread(self._run_main_thread)

    def request_stop(self) -> None:
        self._stopping.set()

    def abandon(self) -> None:
        self._abandoned.set()

    def join_threads(self, until_s: float) -> None:
        """Wait until all threads have ended or the time is over; helpers may start further helpers."""
        while (thread := self._any_thread()) is not None and time.monotonic() < until_s:
            thread.join(max(0.0, until_s - time.monotonic()))

    def _any_thread(self) -> threading.Thread | None:
        with self._lock:
            return next(iter(self._threads), None)

    def _start_thread(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())
                    is_last = self._stopping.is_set() and not self._threads
                if is_last and isinstance(self._channel, ClosableChannel):
                    self._channel.close()

        # A daemon thread: a channel that hangs must not delay the end of the process.
        thread = threading.Thread(target=run, name=f"notify-{self._name}", daemon=True)
        with self._lock:
            if len(self._threads) >= self._channel.concurrency:
                return
            self._threads.add(thread)
            thread.start()

    def _run_main_thread(self) -> None:
        while not self._abandoned.is_set():
            if self._deliver_next():
                continue
            if self._stopping.is_set():
                break
            self._stopping.wait(_POLL_INTERVAL_S)
        if self._level is not None:
            self._level.release()

    def _run_helper_thread(self) -> None:
        while not self._abandoned.is_set() and self._deliver_next():
            pass

    def _deliver_next(self) -> bool:
        """Send the next message while a helper claims the one after it; return whether there was one."""
        try:
            if self._level is not None:
                if not self._level.hold():
                    return False
                self._level.repeat_if_due()
            messages = claim_messages(self._outbox, self._name, self._channel)
            if not messages:
                return False
            self._start_thread(self._run_helper_thread)
            self._record_result(messages, send_messages(self._channel, messages))
        except StorageUnavailable as error:
            log.warning("Channel %s: %s; retrying.", self._name, error, extra={"action": "notify"})
            return False
        except Exception:
            log.exception("Channel %s failed unexpectedly; it continues.", self._name, extra={"action": "notify"})
            return False
        return True

    def _record_result(self, messages: Sequence[Message], result: DeliveryResult) -> None:
        """Record a result, retrying for a minute; a message without a record is sent again under the same id."""
        until_s = time.monotonic() + _RECORD_TIMEOUT_S
        while True:
            try:
                record_result(self._outbox, messages, result, self._deadline_us, self._counts)
            except StorageUnavailable:
                if self._abandoned.is_set() or time.monotonic() > until_s:
                    raise
                self._abandoned.wait(_RECORD_RETRY_INTERVAL_S)
            else:
                return
