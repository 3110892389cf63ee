"""The choice of the codec for a stream."""

from __future__ import annotations

from collections.abc import Sequence

from config.streams import EventSettings
from consumers.codecs.filtering import FilteringCodec, RecordFilter
from consumers.codecs.float32 import Float32Codec
from consumers.codecs.messages import MessageCodec
from consumers.codecs.schema import Codec, Schema, build_schema
from consumers.codecs.table import TableCodec
from consumers.source import Layout

__all__ = ["Codec", "RecordFilter", "make_codec"]


def make_codec(
    event: EventSettings,
    features: Sequence[str],
    *,
    layout: Layout,
    max_future_us: int,
    record_filter: RecordFilter | None = None,
) -> Codec:
    """Return the codec for an event format and a source layout.

    Args:
        event: The event settings of the stream.
        features: The features in the model's order.
        layout: The layout of the source's batches.
        max_future_us: The accepted lead of an event time over the broker's timestamp, in microseconds.
        record_filter: The decision which records become events; None: all of them.

    Raises:
        ValueError: `features` is empty.
    """
    if not features:
        raise ValueError("a codec needs at least one feature")
    schema = build_schema(event, features, max_future_us)
    codec = _make_unfiltered_codec(schema, layout)
    if record_filter is None:
        return codec
    return FilteringCodec(codec=codec, schema=schema, record_filter=record_filter)


def _make_unfiltered_codec(schema: Schema, layout: Layout) -> Codec:
    if layout == "table":
        return TableCodec(schema)
    if schema.format == "float32":
        return Float32Codec(schema)
    return MessageCodec(schema)
