"""The silence watch: a wall-clock job per stream. It acts only while this process holds the stream's lease."""

from collections.abc import Callable, Sequence

from config.settings import Settings
from config.stream_rules import StreamRules
from config.time_format import DAY_US
from config.units import to_us
from monitor.daemon.rules import build_stream_rules
from monitor.incidents.silence import (
    AllowedSilence,
    SilenceRule,
    estimate_allowed_silence,
    find_silence,
    update_silence_incident,
)
from storage.control.incidents import change_incidents
from storage.control.silence import ArrivalFacts, SilenceStore
from storage.database.engine import Database

_LOOK_BACK_US = 15 * DAY_US


def build_silence_rule(settings: Settings, stream: str) -> SilenceRule | None:
    """Build the rule for the silence of a stream from the settings; None for `silence_after: never`."""
    stream_settings = settings.streams[stream]
    after = stream_settings.alerts.silence_after
    if after == "never":
        return None
    return SilenceRule(
        after_us=None if isinstance(after, str) else to_us(after),
        idle_timeout_us=to_us(stream_settings.window.idle_timeout),
        size_us=to_us(stream_settings.window.size),
        max_event_age_us=to_us(settings.notify.max_age),
        timezone=stream_settings.timezone,
    )


class SilenceWatch:
    """Watches one stream for silence; one thread at a time calls `check` every few seconds.

    Its only state that is not stored is the time at which it started to watch. `owner` returns the present holder name
    of this process, which changes when the stream starts again.
    """

    def __init__(self, rules: StreamRules, db: Database, rule: SilenceRule | None, *, owner: Callable[[], str]) -> None:
        self._rules = rules
        self._db = db
        self._rule = rule
        self._owner = owner
        self._store = SilenceStore(db)
        self._watched_since_us: int | None = None
        self._cache: tuple[int, int | None, AllowedSilence | None] | None = None
        self._read_settings: Callable[[], Settings] | None = None
        self._settings: Settings | None = None
        self._channels_for: Callable[..., Sequence[str]] | None = None

    @classmethod
    def from_settings(
        cls,
        read_settings: Callable[[], Settings],
        stream: str,
        db: Database,
        *,
        owner: Callable[[], str],
        channels_for: Callable[..., Sequence[str]] | None = None,
    ) -> "SilenceWatch":
        """Build the watch of a stream.

        Args:
            read_settings: Returns the present settings, the same object until they change.
            stream: Name of the stream.
            db: The database.
            owner: As in the constructor.
            channels_for: As in `build_stream_rules`.
        """
        settings = read_settings()
        rules = build_stream_rules(settings, stream, channels_for=channels_for)
        watch = cls(rules, db, build_silence_rule(settings, stream), owner=owner)
        watch._read_settings, watch._settings, watch._channels_for = read_settings, settings, channels_for
        return watch

    def _follow_settings(self) -> None:
        """Watch under the present settings of the stream, which another process may have changed."""
        settings = None if self._read_settings is None else self._read_settings()
        if settings is not None and settings is not self._settings:
            stream = self._rules.stream
            self._rules = build_stream_rules(settings, stream, channels_for=self._channels_for)
            self._rule = build_silence_rule(settings, stream)
            self._settings, self._cache = settings, None

    def check(self) -> None:
        """Open, escalate, repeat or resolve the stream's silence incident; does nothing without the lease."""
        self._follow_settings()
        stream_id = self._store.find_stream(self._rules.stream)
        if stream_id is None or not self._store.is_lease_held(f"control:{self._rules.stream}", self._owner()):
            self._watched_since_us = None
            return
        facts = self._store.arrival_facts(stream_id)
        if self._watched_since_us is None:
            self._watched_since_us = facts.now_us
        finding = None
        if self._rule is not None:
            allowed = self._allowed_silence(stream_id, facts, self._rule)
            finding = find_silence(facts, allowed, self._rule, watched_since_us=self._watched_since_us)
        # Checked without a lock first: in nearly all cases there is nothing to write.
        if update_silence_incident(finding, self._store.open_incidents(stream_id), facts, self._rules):
            change_incidents(
                self._db,
                stream_id,
                self._rules.stream,
                lambda open_incidents: update_silence_incident(finding, open_incidents, facts, self._rules),
            )

    def _allowed_silence(self, stream_id: int, facts: ArrivalFacts, rule: SilenceRule) -> AllowedSilence | None:
        """Return the allowed silence since the last event, cached until the next event or judged window."""
        if rule.after_us is not None or facts.last_event_us is None or facts.last_arrival_us is None:
            return None
        # The allowed silence is at least `idle_timeout`, so a shorter silence needs no estimate.
        if facts.now_us - facts.last_arrival_us <= rule.idle_timeout_us:
            return None
        key = (facts.last_event_us, facts.last_window_us)
        if self._cache is None or self._cache[:2] != key:
            history = self._store.pause_history(stream_id, facts.last_event_us - _LOOK_BACK_US)
            self._cache = (*key, estimate_allowed_silence(history, facts.last_event_us, rule))
        return self._cache[2]
