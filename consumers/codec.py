"""The choice of the codec for a stream."""

from __future__ import annotations

from collections.abc import Sequence

from config.streams import EventSettings
from consumers.codecs.float32 import Float32Codec
from consumers.codecs.messages import MessageCodec
from consumers.codecs.schema import Codec, build_schema
from consumers.codecs.table import TableCodec
from consumers.source import Layout

__all__ = ["Codec", "make_codec"]


def make_codec(event: EventSettings, features: Sequence[str], *, layout: Layout, max_future_us: int) -> Codec:
    """Return the codec for an event format and a source layout.

    Args:
        event: The event settings of the stream.
        features: The features in the model's order.
        layout: The layout of the source's batches.
        max_future_us: The accepted lead of an event time over the broker's timestamp, in microseconds.

    Raises:
        ValueError: `features` is empty.
    """
    if not features:
        raise ValueError("a codec needs at least one feature")
    schema = build_schema(event, features, max_future_us)
    if layout == "table":
        return TableCodec(schema)
    if schema.format == "float32":
        return Float32Codec(schema)
    return MessageCodec(schema)
