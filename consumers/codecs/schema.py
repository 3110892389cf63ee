"""Consumers: what a stream's records have to carry to become events, and the protocol of the codecs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from config.streams import EventSettings
from consumers.batch import DecodedBatch, RawBatch
from consumers.times import TimeUnit


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The fields of an event: the features in the model's order, and where time, key and id are found."""

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
    """Return the schema that the settings of a stream describe, with the features that its model has."""
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
    """Records to columns."""

    def decode(self, raw: RawBatch, now_us: int) -> DecodedBatch:
        """Return the batch as columns: every record is an event or a dead letter, whatever its bytes.

        `now_us` is the time of events that carry none and come from a file. Where missing features stand
        for the mean, they are NaN; otherwise features are finite. Raises nothing on any input.
        """
        ...
