"""The progress of a warm-up, stored as JSON in the row of the stream. The columns of a stream need no migration."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRecords:
    """Records that a warm-up rejected for the same reason, as a count: they are scored, and stored, only afterwards.

    Attributes:
        reason: The dead-letter reason.
        n: The number of records.
        detail: The detail of the first of them, such as the name of the absent field.
        hint: A remedy, such as the nearest name of an absent field; None if there is none.
    """

    reason: str
    n: int
    detail: str = ""
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUpProgress:
    """The progress of a warm-up.

    Attributes:
        events: The number of usable events read; the number of records until the features are known.
        wanted: The number of events to fit on.
        left_s: The estimated remaining time in seconds; None while it is unknown.
        records: The number of records read.
        rejected: The number of them that are no events.
        rejections: The rejected records by reason and field, the largest group first.
        caught_up: Whether the log has been read to its end, so that only new records are missing.
        events_per_s: The rate of new events of a log that was read to its end; None while it is unknown.
        fits_early_in_s: The seconds until the warm-up is satisfied with fewer events; None if it is not earlier.
    """

    events: int
    wanted: int
    left_s: float | None = None
    records: int = 0
    rejected: int = 0
    rejections: tuple[RejectedRecords, ...] = ()
    caught_up: bool = False
    events_per_s: float | None = None
    fits_early_in_s: float | None = None

    def to_details(self) -> dict[str, Any]:
        """Return the progress as JSON values."""
        return asdict(self)

    @staticmethod
    def from_details(details: Mapping[str, Any], wanted: int = 0) -> "WarmUpProgress":
        """Read the progress from the details of a stream; values of an older program and `wanted` fill the gaps."""
        stored = details.get("warm_up", {})
        return WarmUpProgress(
            events=int(stored.get("events", 0)),
            wanted=int(stored.get("wanted", wanted)),
            left_s=_optional_float(stored.get("left_s")),
            records=int(stored.get("records", 0)),
            rejected=int(stored.get("rejected", 0)),
            rejections=tuple(
                RejectedRecords(
                    reason=str(each["reason"]), n=int(each["n"]), detail=str(each["detail"]), hint=each.get("hint")
                )
                for each in stored.get("rejections", ())
            ),
            caught_up=bool(stored.get("caught_up", False)),
            events_per_s=_optional_float(stored.get("events_per_s")),
            fits_early_in_s=_optional_float(stored.get("fits_early_in_s")),
        )


def _optional_float(value: Any) -> float | None:
    return None if value is None else float(value)
