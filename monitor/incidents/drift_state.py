"""The state between drift steps: open drifts, the cycle of the stream, and the factors that earlier alarms left."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftAlarm:
    """A drift over one length: its first drifted horizon and the number of clean horizons since.

    A drift over cycles also has `level_us`, the start of the last cycle that was told, and is `settled` when a further
    cycle had the same level: the incident is then resolved, and the base follows.
    """

    since_us: int
    clean: int = 0
    level_us: int | None = None
    settled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftState:
    """The state between drift steps. Mappings are by the length of the horizon.

    Attributes:
        base_from_us: Start of the base of all lengths: the activation of the model, or an accepted drift.
        waiting: The reason for a missing verdict as text, by the horizon as the configuration writes it.
        alarms: The drifts that have not ended.
        cycle_us: The cycle of the stream that was found, one of `CYCLES_US`; None without one.
        starts: Starts of the baselines that were renewed after a lasting change.
        raised: Logarithms of the factors by which earlier alarms have raised the threshold of |z|.
        shrunk: Factors on the differences of cycles that drifted, by the start of the cycle.
    """

    base_from_us: int | None = None
    waiting: Mapping[str, str] = field(default_factory=dict)
    alarms: Mapping[int, DriftAlarm] = field(default_factory=dict)
    cycle_us: int | None = None
    starts: Mapping[int, int] = field(default_factory=dict)
    raised: Mapping[int, float] = field(default_factory=dict)
    shrunk: Mapping[int, float] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Return whether a drift is open: found, and neither over nor settled."""
        return any(not alarm.settled for alarm in self.alarms.values())

    def start_of(self, horizon_us: int) -> int:
        """Return the time at which the baseline of a length begins."""
        assert self.base_from_us is not None, "a step sets the start of the base first"
        return self.starts.get(horizon_us, self.base_from_us)

    def to_json(self) -> dict[str, Any]:
        """Return the state as the JSON object that is stored."""
        return {
            "base_from_us": self.base_from_us,
            "waiting": dict(self.waiting),
            "alarms": {str(length): asdict(alarm) for length, alarm in self.alarms.items()},
            "cycle_us": self.cycle_us,
            "starts": {str(length): start_us for length, start_us in self.starts.items()},
            "raised": {str(length): log_factor for length, log_factor in self.raised.items()},
            "shrunk": {str(start_us): factor for start_us, factor in self.shrunk.items()},
        }

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> "DriftState":
        """Return the stored state, or the initial one for an empty object. Keys of earlier versions are ignored."""
        return DriftState(
            base_from_us=stored.get("base_from_us"),
            waiting=stored.get("waiting", {}),
            alarms={int(length): DriftAlarm(**alarm) for length, alarm in stored.get("alarms", {}).items()},
            cycle_us=stored.get("cycle_us"),
            **{name: _by_number(stored.get(name, {})) for name in ("starts", "raised", "shrunk")},
        )


def _by_number(stored: Mapping[str, Any]) -> dict[int, Any]:
    return {int(key): value for key, value in stored.items()}
