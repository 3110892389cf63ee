"""Reload of the settings in a running daemon: those of the process itself take effect, the others wait."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from config.setting_classes import SETTING_CLASSES, apply_shared, select_shared
from config.settings import Settings
from config.units import to_us
from monitor.notify.delivery_counts import DeliveryCounts
from monitor.notify.sender import NotificationSender
from storage.control.outbox import Outbox

_LIVE_KEYS = ("logging", "notify.channels", "notify.routes", "notify.deadline", "notify.heartbeats", "retention")
_UNCHANGED = "Reloaded the configuration; no setting has changed."
_ABSENT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadPlan:
    """The result of a comparison of the settings in effect with those of the file.

    Attributes:
        settings: The settings in effect after the reload.
        applied: The changed keys that take effect, dotted.
        scheduled: The changed keys of a stream that all its processes share, dotted. They are proposed as the settings
            of the stream and become valid by its schedule (windows, ticks, models).
        pending: The other changed keys that take effect after a restart, dotted.
    """

    settings: Settings
    applied: tuple[str, ...]
    scheduled: tuple[str, ...]
    pending: tuple[str, ...]

    def changes(self, section: str) -> bool:
        """Return whether a change in a section of the settings takes effect."""
        return any(key.partition(".")[0] == section for key in self.applied)

    def schedules(self, stream: str) -> bool:
        """Return whether a setting of a stream that its processes share has changed."""
        return any(key.startswith(f"streams.{stream}.") for key in self.scheduled)

    def describe(self) -> str:
        """Return one line for the log. It contains keys, and no values, which may be secrets."""
        groups = (
            ("in effect now", self.applied),
            ("proposed to the schedule of the stream's settings", self.scheduled),
            ("in effect after a restart", self.pending),
        )
        changes = [f"{when}: {', '.join(keys)}" for when, keys in groups if keys]
        if not changes:
            return _UNCHANGED
        if not self.applied:
            changes.insert(0, "no change takes effect now")
        return f"Reloaded the configuration; {'; '.join(changes)}."


def plan_reload(current: Settings, written: Settings) -> ReloadPlan:
    """Compare the settings in effect with those of the file.

    The log, the retention, and the channels, routes, deadline and heartbeats of `notify` take effect without a restart.
    The retention waits if it would delete windows of a look-back in effect.
    """
    live_keys = [key for key in _LIVE_KEYS if key != "retention" or _keeps_look_backs(current, written)]
    changed = sorted(_changed_keys(current.model_dump(mode="json"), written.model_dump(mode="json"), ""))
    applied = [key for key in changed if any(key == live or key.startswith(f"{live}.") for live in live_keys)]
    waiting = [key for key in changed if key not in applied]
    effective = {
        "notify": written.notify.model_copy(update={"max_age": current.notify.max_age}),
        "logging": written.logging,
        "retention": written.retention if "retention" in live_keys else current.retention,
    }
    streams = {
        name: apply_shared(stream, select_shared(written.streams[name])) if name in written.streams else stream
        for name, stream in current.streams.items()
    }
    return ReloadPlan(
        settings=current.model_copy(update={**effective, "streams": streams}),
        applied=tuple(applied),
        scheduled=tuple(key for key in waiting if _is_shared(key)),
        pending=tuple(key for key in waiting if not _is_shared(key)),
    )


def _keeps_look_backs(current: Settings, written: Settings) -> bool:
    longest = max(stream.threshold.look_back for stream in current.streams.values())
    return written.retention.windows >= longest


def _is_shared(key: str) -> bool:
    """Return whether all processes of a stream share the setting, or the section of such settings."""
    if key.count(".") < 2:
        return False  # a whole stream, or no setting of a stream
    section, _, rest = key.split(".", 2)
    pattern = f"{section}.*.{rest}"
    return any(
        name == pattern or name.startswith(f"{pattern}.") for name, each in SETTING_CLASSES.items() if each != "local"
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

    Attributes:
        counts: The numbers of deliveries, over all reloads.
    """

    def __init__(self, settings: Settings, outbox: Outbox) -> None:
        self._settings = settings.notify
        self._outbox = outbox
        self.counts = DeliveryCounts()
        self._sender = NotificationSender.from_settings(settings, outbox, self.counts)

    def start(self) -> None:
        """Start the sender threads."""
        self._sender.start()

    def stop(self, within_s: float) -> None:
        """Send due messages once more, then stop the sender threads."""
        self._sender.stop(within_s)

    def replace(self, settings: Settings) -> None:
        """Replace routes and channels. A message that is being sent is completed by the former channel."""
        before = self._sender
        self._sender = NotificationSender.from_settings(settings, self._outbox, self.counts)
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
