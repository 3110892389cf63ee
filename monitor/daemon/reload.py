"""Reload of the notification settings in a running daemon; other settings need a restart."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from config.settings import Settings
from config.units import to_us
from monitor.notify.sender import NotificationSender
from storage.control.outbox import Outbox

_LIVE_KEYS = ("notify.channels", "notify.routes", "notify.deadline")
_UNCHANGED = "Reloaded the configuration; no setting has changed."
_ABSENT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadPlan:
    """The result of a comparison of the settings in effect with those of the file.

    Attributes:
        settings: The settings in effect after the reload.
        applied: The changed keys that take effect, dotted.
        pending: The changed keys that take effect after a restart, dotted.
    """

    settings: Settings
    applied: tuple[str, ...]
    pending: tuple[str, ...]

    def describe(self) -> str:
        """Return one line for the log. It contains keys, and no values, which may be secrets."""
        if not self.applied and not self.pending:
            return _UNCHANGED
        applied = f"in effect now: {', '.join(self.applied)}" if self.applied else "no change takes effect now"
        pending = f"; in effect after a restart: {', '.join(self.pending)}" if self.pending else ""
        return f"Reloaded the configuration; {applied}{pending}."


def plan_reload(current: Settings, written: Settings) -> ReloadPlan:
    """Compare the settings in effect with those of the file.

    The channels, the routes and the deadline of `notify` take effect without a restart.
    """
    changed = sorted(_changed_keys(current.model_dump(mode="json"), written.model_dump(mode="json"), ""))
    is_live = [any(key == live or key.startswith(f"{live}.") for live in _LIVE_KEYS) for key in changed]
    notify = written.notify.model_copy(update={"max_age": current.notify.max_age})
    return ReloadPlan(
        settings=current.model_copy(update={"notify": notify}),
        applied=tuple(key for key, live in zip(changed, is_live, strict=True) if live),
        pending=tuple(key for key, live in zip(changed, is_live, strict=True) if not live),
    )


def _changed_keys(before: Any, after: Any, path: str) -> Iterator[str]:
    """Yield the dotted keys with different values; of a channel, which is replaced as a whole, only its name."""
    is_channel = path.startswith("notify.channels.")
    if isinstance(before, dict) and isinstance(after, dict) and not is_channel:
        for key in before.keys() | after.keys():
            yield from _changed_keys(before.get(key, _ABSENT), after.get(key, _ABSENT), f"{path}.{key}".lstrip("."))
    elif before != after:
        yield path


class LiveNotifications:
    """The routes, the channels and their sender threads, replaced together by a reload.

    The methods except `channels_for` and `give_up_unknown` are for one thread.
    """

    def __init__(self, settings: Settings, outbox: Outbox) -> None:
        self._settings = settings.notify
        self._outbox = outbox
        self._sender = NotificationSender.from_settings(settings.notify, outbox)

    def start(self) -> None:
        """Start the sender threads."""
        self._sender.start()

    def stop(self, within_s: float) -> None:
        """Send due messages once more, then stop the sender threads."""
        self._sender.stop(within_s)

    def replace(self, settings: Settings) -> None:
        """Replace routes and channels. A message that is being sent is completed by the former channel."""
        before, self._sender = self._sender, NotificationSender.from_settings(settings.notify, self._outbox)
        self._sender.start()
        self._settings = settings.notify
        before.stop(0.0)

    def channels_for(self, *, stream: str, kind: str, severity: str) -> tuple[str, ...]:
        """Return the channels of an incident by the routes in effect."""
        return self._settings.channels_for(stream=stream, kind=kind, severity=severity)

    def give_up_unknown(self) -> None:
        """Give up the messages of channels that are no longer configured, after the deadline."""
        settings = self._settings
        self._outbox.give_up_unknown_channels({"log", *settings.channels}, to_us(settings.deadline))
