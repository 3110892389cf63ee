"""The state between drift steps: open drifts, and the intervals of earlier ones."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftAlarm:
    """An open drift over one horizon length: its first drifted horizon and the number of clean horizons since."""

    since_us: int
    clean: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftState:
    """The state between drift steps, by the length of the horizon.

    `alarms` are the open drifts. `spans` are the intervals of earlier ones, which are not used as normal days.
    `waiting` holds the reason for a missing verdict as text, by the horizon as the configuration writes it.
    """

    base_from_us: int | None = None
    waiting: Mapping[str, str] = field(default_factory=dict)
    alarms: Mapping[int, DriftAlarm] = field(default_factory=dict)
    spans: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)

    def is_drifting(self, horizon_us: int, start_us: int) -> bool:
        """Return True if a horizon lies in a drift."""
        alarm = self.alarms.get(horizon_us)
        if alarm is not None and start_us >= alarm.since_us:
            return True
        return any(begin <= start_us < end for begin, end in self.spans.get(horizon_us, ()))

    def to_json(self) -> dict[str, Any]:
        """Return the state as the JSON object that is stored."""
        return {
            "base_from_us": self.base_from_us,
            "waiting": dict(self.waiting),
            "alarms": {str(length): asdict(alarm) for length, alarm in self.alarms.items()},
            "spans": {str(length): [list(span) for span in spans] for length, spans in self.spans.items()},
        }

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> "DriftState":
        """Return the stored state, or the initial one for an empty object."""
        return DriftState(
            base_from_us=stored.get("base_from_us"),
            waiting=stored.get("waiting", {}),
            alarms={int(length): DriftAlarm(**alarm) for length, alarm in stored.get("alarms", {}).items()},
            spans={
                int(length): [(begin, end) for begin, end in spans] for length, spans in stored.get("spans", {}).items()
            },
        )
