"""Couriers: threads that take what is due from the outbox to its channels.

Each channel has threads of its own, so that one which hangs holds up neither the others nor any scoring.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from config.errors import StorageUnavailable
from config.notify import LogChannelSettings as LogSettings
from config.notify import NotifySettings
from config.units import to_us
from monitor.notify.backoff import next_attempt_us
from monitor.notify.channel import Channel, DeliveryResult, LogChannel
from monitor.notify.webhook import Webhook
from storage.control.outbox import Message, Outbox

log = logging.getLogger(__name__)

_POLL_INTERVAL_S = 1.0
_LEASE_MARGIN_S = 5.0
_RECORD_RETRY_INTERVAL_S = 0.5
_RECORD_TIMEOUT_S = 60.0


def build_channels(settings: NotifySettings) -> dict[str, Channel]:
    """Return the channels that messages can be sent on, by name; `log` is always one of them."""
    named: dict[str, Channel] = {
        name: LogChannel() if isinstance(channel, LogSettings) else Webhook(channel)
        for name, channel in settings.channels.items()
    }
    return {"log": LogChannel()} | named


def deliver_next(outbox: Outbox, name: str, channel: Channel, deadline_us: int) -> bool:
    """Send the channel's next due message and record what became of it; return whether there was one.

    The message is claimed for a little longer than sending may take. Who dies meanwhile has told it or not; it is
    told again under its id when the claim has run out.
    """
    message = outbox.claim(name, claim_duration_us(channel))
    if message is None:
        return False
    record_result(outbox, message, send_message(channel, message), deadline_us)
    return True


def claim_duration_us(channel: Channel) -> int:
    """Return for how long a message of this channel is claimed, in microseconds."""
    return int((channel.timeout_s + _LEASE_MARGIN_S) * 1e6)


def send_message(channel: Channel, message: Message) -> DeliveryResult:
    """Send a message; whatever the channel does, there is an answer."""
    try:
        return channel.send(message)
    except Exception as error:
        log.exception("Channel %s broke.", message.channel, extra={"action": "notify", "channel": message.channel})
        return DeliveryResult(outcome="retry", reason=f"unexpected {type(error).__name__}")


def record_result(outbox: Outbox, message: Message, answer: DeliveryResult, deadline_us: int) -> None:
    """Record what became of a message: delivered, to be tried again, or given up."""
    if answer.outcome == "delivered":
        outbox.mark_delivered(message)
        return

    def decide(now_us: int) -> int | None:
        if answer.outcome == "refused":
            return None
        return next_attempt_us(
            message.id,
            message.attempt,
            now_us=now_us,
            created_at_us=message.created_at_us,
            deadline_us=deadline_us,
            wait_us=None if answer.retry_after_s is None else int(answer.retry_after_s * 1e6),
        )

    _log_failure(message, answer, outbox.mark_failed(message, answer.reason, decide))


def _log_failure(message: Message, answer: DeliveryResult, wait_us: int | None) -> None:
    """Log a failure: loudly when the message is given up, else once."""
    what_next = "it is given up" if wait_us is None else f"the next attempt is in {wait_us / 1e6:.0f} s"
    quiet = logging.WARNING if message.attempt == 1 else logging.INFO
    log.log(
        logging.ERROR if wait_us is None else quiet,
        "Channel %s: %s of incident %d was not delivered (attempt %d): %s; %s.",
        message.channel,
        message.transition,
        message.incident_id,
        message.attempt,
        answer.reason,
        what_next,
        extra={
            "action": "notify",
            "channel": message.channel,
            "notification": message.id,
            "incident": message.incident_id,
            "attempt": message.attempt,
        },
    )


class NotificationSender:
    """The threads of all channels, from `start` to `finish`."""

    def __init__(self, outbox: Outbox, channels: Mapping[str, Channel], *, deadline_us: int) -> None:
        self._couriers = [_ChannelSender(outbox, name, channel, deadline_us) for name, channel in channels.items()]

    @classmethod
    def from_settings(cls, settings: NotifySettings, outbox: Outbox) -> "NotificationSender":
        """Return the couriers of the configured channels."""
        return cls(outbox, build_channels(settings), deadline_us=to_us(settings.deadline))

    def start(self) -> None:
        """Start a thread for each channel."""
        for courier in self._couriers:
            courier.start()

    def stop(self, within_s: float) -> None:
        """Tell what is due once more and end; what hangs longer is left to the next run."""
        until_s = time.monotonic() + within_s
        for courier in self._couriers:
            courier.request_stop()
        for courier in self._couriers:
            courier.join_threads(until_s)
        for courier in self._couriers:
            courier.abandon()


class _ChannelSender:
    """One channel's threads: one that stays, and helpers while messages are under way."""

    def __init__(self, outbox: Outbox, name: str, channel: Channel, deadline_us: int) -> None:
        self._outbox = outbox
        self._name = name
        self._channel = channel
        self._deadline_us = deadline_us
        self._finishing = threading.Event()
        self._abandoned = threading.Event()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()

    def start(self) -> None:
        self._start_thread(self._run_main_thread)

    def request_stop(self) -> None:
        self._finishing.set()

    def abandon(self) -> None:
        self._abandoned.set()

    def join_threads(self, until_s: float) -> None:
        """Wait for the threads' end, as long as there is time; helpers may start helpers meanwhile."""
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

        # A daemon thread: a name server that does not answer must not hold the end of the process.
        thread = threading.Thread(target=run, name=f"courier-{self._name}", daemon=True)
        with self._lock:
            if len(self._threads) >= self._channel.concurrency:
                return
            self._threads.add(thread)
            thread.start()

    def _run_main_thread(self) -> None:
        while not self._abandoned.is_set():
            if self._deliver_next():
                continue
            if self._finishing.is_set():
                return
            self._finishing.wait(_POLL_INTERVAL_S)

    def _run_helper_thread(self) -> None:
        while not self._abandoned.is_set() and self._deliver_next():
            pass

    def _deliver_next(self) -> bool:
        """Send the next message while a helper looks for the one after it; return whether there was one."""
        try:
            message = self._outbox.claim(self._name, claim_duration_us(self._channel))
            if message is None:
                return False
            self._start_thread(self._run_helper_thread)
            self._record_result(message, send_message(self._channel, message))
        except StorageUnavailable as away:
            log.warning("Channel %s: %s; trying again.", self._name, away, extra={"action": "notify"})
            return False
        except Exception:
            log.exception("Channel %s broke; it goes on.", self._name, extra={"action": "notify"})
            return False
        return True

    def _record_result(self, message: Message, answer: DeliveryResult) -> None:
        """Record what became of a message; what cannot be recorded in time is told again under the same id."""
        until_s = time.monotonic() + _RECORD_TIMEOUT_S
        while True:
            try:
                record_result(self._outbox, message, answer, self._deadline_us)
            except StorageUnavailable:
                if self._abandoned.is_set() or time.monotonic() > until_s:
                    raise
                self._abandoned.wait(_RECORD_RETRY_INTERVAL_S)
            else:
                return
