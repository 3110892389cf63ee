"""The schema of a stream's events and the codec protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from config.streams import EventSettings
from consumers.batch import RawBatch
from consumers.decoded_batch import DecodedBatch
from consumers.times import TimeUnit


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The fields of an event: the features in the model's order, and the fields of time, key and id."""

    format: Literal["json", "float32", "msgpack"] = "json"
    features: tuple[str, ...]
    time_field: str | None = None
    time_unit: TimeUnit = "auto"
    key_field: str | None = None
    id_field: str | None = None
    mean_if_missing: bool = False
    max_bytes: int = 2**20
    max_future_us: int = 300_000_000


def build_schema(event: EventSettings, features: Sequence[str], max_future_us: int) -> Schema:
    """Build the schema from a stream's event settings and its model's features."""
    return Schema(
        format=event.format,
        features=tuple(features),
        time_field=None if event.time is None else event.time.field,
        time_unit="auto" if event.time is None else event.time.unit,
        key_field=event.key,
        id_field=event.id,
        mean_if_missing=event.missing == "mean",
        max_bytes=int(event.max_size),
        max_future_us=max_future_us,
    )


class Codec(Protocol):
    """A decoder of raw batches."""

    def decode(self, raw: RawBatch, now_us: int) -> DecodedBatch:
        """Decode a batch: every record becomes an event, a dead letter or a filtered record.

        `now_us` is the time of file events without a time field. With `mean_if_missing`, missing features are
        NaN. All other features are finite. No input raises an exception.
        """
        ...
