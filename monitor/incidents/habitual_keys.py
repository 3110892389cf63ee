"""Habitual keys: keys whose events are usually outliers, and the rate that is expected of them. Pure functions.

The events of a habitual key are not left out. They are expected: the mean of a window is (n - n_hab) r plus the sum of
lambda_k n_k over the habitual keys, with lambda_k the outlier rate of key k. A key whose rate doubles is therefore seen
as a doubling, and the end of the habit removes nothing.

The rates are learned from the windows in which a key occurs, at most about `LEARNED_EVENTS` events a window on average.
The state is bounded and belongs to the judge state of the stream.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

from config.time_format import DAY_US
from monitor.incidents.key_energies import add_root, halve_roots
from storage.control.records import HabitualKeyRow

KeyCounts = Mapping[str, tuple[int, int]]
"""Events and outliers of keys in one window: of those with outliers, and of those that are tracked."""

MIN_WINDOWS = 30
"""The number of windows with events of a key from which it can be habitual."""

MAX_AGE_US = 28 * DAY_US
"""A key is habitual for at most this long. Then its windows count anew."""

MIN_RATE_RATIO = 5.0
"""A key is tracked while its outlier rate is at least this many times the clean rate of the stream."""

MIN_RATE = 0.25
"""The smallest outlier rate of a habitual key. Ordinary keys do not reach it by chance in 30 windows."""

MAX_DISPERSION = 2.0
"""The largest dispersion of the outliers of a key between its windows at which its rate is steady."""

MAX_TRACKED = 200
LEARNED_EVENTS = 2_000
"""Windows with more events are learned from one in events / this."""

_MAX_WINDOWS = 200
"""From this number of windows on, the counts of a key are halved, so that they follow its rate."""

_LEAVING_FACTOR = 2.0
_TRIAL_WINDOWS = 5
_PRIOR_EVENTS = 1.0
_COUNTS = 6
_HABIT_NUMBERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedKey:
    """The counts of a key over the windows in which it occurs.

    `squares` is the sum of outliers^2 / events over the windows. `first_us` and `last_us` are the starts of the first
    and the last of them. `roots` are the roots of the largest energies of `measured` windows
    (`monitor.incidents.key_energies`).
    """

    windows: float
    events: float
    outliers: float
    squares: float
    first_us: int
    last_us: int
    measured: float = 0.0
    roots: tuple[float, ...] = ()

    @property
    def dispersion(self) -> float:
        """Return the Pearson dispersion of its outliers around its rate; 0 where all or none are outliers."""
        rate = self.outliers / self.events
        if not 0 < rate < 1 or self.windows <= 1:
            return 0.0
        return (self.squares - self.outliers * rate) / (rate * (1 - rate) * (self.windows - 1))

    def shrunk_rate(self, clean_rate: float) -> float:
        """Return its rate, shrunk towards the clean rate of the stream by one event."""
        return (self.outliers + _PRIOR_EVENTS * clean_rate) / (self.events + _PRIOR_EVENTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class HabitualKey:
    """A key with its outlier rate, learned from `windows` windows; valid for windows that start in [since, until).

    If a person has accepted it (`monitor.incidents.accepted_keys`), `until_us` is FOREVER_US. `incident_id` is the
    incident from which the person accepted the key, `accepted_at_us` the event time of that.
    """

    rate: float
    windows: int
    since_us: int
    until_us: int
    accepted_by: str | None = None
    accepted_at_us: int | None = None
    incident_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHabits:
    """The tracked and the habitual keys of a stream after a window."""

    tracked: Mapping[str, TrackedKey] = field(default_factory=dict)
    habitual: Mapping[str, HabitualKey] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the habits as the JSON object that is stored with the judge state.

        Energies and acceptances have entries of their own, so that an earlier version can read the others.
        """
        return {
            "tracked": {key: list(asdict(each).values())[:_COUNTS] for key, each in self.tracked.items()},
            "habitual": {key: list(asdict(each).values())[:_HABIT_NUMBERS] for key, each in self.habitual.items()},
            "energies": {key: [each.measured, *each.roots] for key, each in self.tracked.items()},
            "accepted": {
                key: list(asdict(each).values())[_HABIT_NUMBERS:]
                for key, each in self.habitual.items()
                if each.accepted_by is not None
            },
        }

    @staticmethod
    def from_json(stored: Mapping[str, Any] | None) -> "KeyHabits":
        """Return the stored habits; none for a state without them."""
        if stored is None:
            return KeyHabits()
        energies, accepted = stored.get("energies", {}), stored.get("accepted", {})
        return KeyHabits(
            tracked={
                key: _load_tracked(values, energies.get(key, (0.0,))) for key, values in stored["tracked"].items()
            },
            habitual={
                key: HabitualKey(
                    **dict(zip(HabitualKey.__slots__, (*values, *accepted.get(key, (None, None, None))), strict=True))
                )
                for key, values in stored["habitual"].items()
            },
        )

    def valid_at(self, window_start_us: int) -> dict[str, HabitualKey]:
        """Return the keys that are habitual in a window."""
        return {key: each for key, each in self.habitual.items() if each.since_us <= window_start_us < each.until_us}


def is_learned(window_start_us: int, window_end_us: int, events: int) -> bool:
    """Return whether the keys of a window are learned from: every window of few events, else one of several."""
    stride = -(-events // LEARNED_EVENTS)
    return events > 0 and window_start_us // (window_end_us - window_start_us) % stride == 0


def learn_habits(
    habits: KeyHabits,
    counts: KeyCounts,
    *,
    window_start_us: int,
    window_end_us: int,
    clean_rate: float,
    adopt_after_us: int,
    largest: Mapping[str, float] = MappingProxyType({}),
    median: float = 0.0,
) -> KeyHabits:
    """Return the habits after a window.

    Args:
        habits: The habits before it.
        counts: Events and outliers of its keys, all tracked ones included.
        window_start_us: Start of the window.
        window_end_us: End of the window; a new habitual key is expected from there on.
        clean_rate: Clean rate of outliers in the window.
        adopt_after_us: A key is not habitual before its windows span this time: until then a fault of one key is told.
        largest: The largest energies of the outliers of its keys.
        median: The energy in nats from which distances are measured.
    """
    tracked = dict(habits.tracked)
    for key, (events, outliers) in counts.items():
        before = tracked.get(key)
        if before is not None or outliers >= MIN_RATE_RATIO * events * clean_rate:
            added = _add_window(before, events, outliers, window_start_us)
            tracked[key] = replace(added, roots=add_root(added.roots, largest.get(key), median))
    ended = {key for key, each in habits.habitual.items() if window_end_us >= each.until_us}
    kept = {
        key: each
        for key, each in tracked.items()
        if key not in ended
        and each.last_us > window_start_us - MAX_AGE_US
        and (each.windows < _TRIAL_WINDOWS or each.outliers >= MIN_RATE_RATIO * each.events * clean_rate)
    }
    newest_first = sorted(kept, key=lambda key: (-kept[key].windows, -kept[key].last_us, key))
    tracked = {key: kept[key] for key in newest_first[:MAX_TRACKED]}
    return KeyHabits(
        tracked=tracked, habitual=_find_habitual(habits.habitual, tracked, window_end_us, clean_rate, adopt_after_us)
    )


def expect_habitual(rate: float, events: int, habitual: Mapping[str, HabitualKey], counts: KeyCounts) -> float:
    """Return the rate of a window of `events` events with the expected outliers of its habitual keys.

    It is at least `rate`, the rate of the other keys.
    """
    extra = sum(max(each.rate - rate, 0.0) * counts[key][0] for key, each in habitual.items() if key in counts)
    return min(rate + extra / max(events, 1), 1.0)


def changed_rows(before: KeyHabits, after: KeyHabits, window_end_us: int | None = None) -> list[HabitualKeyRow]:
    """Return the rows of the keys that become habitual after a window, of those that end to be, and of accepted ones.

    `window_end_us` is the end of the window, at which habits end; None if only acceptances have changed.
    """
    rows = []
    for key in sorted(before.habitual.keys() | after.habitual.keys()):
        old, new = before.habitual.get(key), after.habitual.get(key)
        if old is not None and (new is None or new.since_us != old.since_us):
            assert window_end_us is not None, "without a window no habit begins or ends"
            rows.append(_to_row(key, replace(old, until_us=min(old.until_us, window_end_us))))
        if new is not None and (old is None or (new.since_us, new.accepted_by) != (old.since_us, old.accepted_by)):
            rows.append(_to_row(key, new))
    return rows


def _load_tracked(counts: Sequence[float], energies: Sequence[float]) -> TrackedKey:
    """Return a key from JSON: its counts, and its energies as the number of windows and the roots."""
    named: dict[str, Any] = dict(zip(TrackedKey.__slots__, counts, strict=False))
    return TrackedKey(**named, measured=energies[0], roots=tuple(energies[1:]))


def _to_row(key: str, each: HabitualKey) -> HabitualKeyRow:
    return HabitualKeyRow(
        key=key,
        rate=each.rate,
        windows=each.windows,
        since_us=each.since_us,
        until_us=each.until_us,
        accepted_by=each.accepted_by,
        accepted_at_us=each.accepted_at_us,
    )


def _add_window(before: TrackedKey | None, events: int, outliers: int, window_start_us: int) -> TrackedKey:
    if before is None:
        before = TrackedKey(
            windows=0, events=0, outliers=0, squares=0, first_us=window_start_us, last_us=window_start_us
        )
    halves = before.windows >= _MAX_WINDOWS
    share = 0.5 if halves else 1.0
    return TrackedKey(
        windows=before.windows * share + 1,
        events=before.events * share + events,
        outliers=before.outliers * share + outliers,
        squares=before.squares * share + outliers**2 / events,
        first_us=before.first_us,
        last_us=window_start_us,
        measured=before.measured * share + 1,
        roots=halve_roots(before.roots) if halves else before.roots,
    )


def _find_habitual(
    before: Mapping[str, HabitualKey],
    tracked: Mapping[str, TrackedKey],
    window_end_us: int,
    clean_rate: float,
    adopt_after_us: int,
) -> dict[str, HabitualKey]:
    found: dict[str, HabitualKey] = {}
    for key, each in tracked.items():
        known = before.get(key)
        slack = 1.0 if known is None else _LEAVING_FACTOR
        rate = each.shrunk_rate(clean_rate)
        is_rare = rate < max(MIN_RATE / slack, MIN_RATE_RATIO * clean_rate)
        is_young = each.windows < MIN_WINDOWS or window_end_us - each.first_us < adopt_after_us
        if is_young or each.dispersion > slack * MAX_DISPERSION or is_rare:
            continue
        if known is None:
            known = HabitualKey(rate=rate, windows=0, since_us=window_end_us, until_us=window_end_us + MAX_AGE_US)
        found[key] = replace(known, rate=rate, windows=int(each.windows))
    return found
