"""Consumers: the codec of a stream: bytes and tables to columns of events."""

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
    """Return the codec that gives these features, in this order; `layout` is the source's."""
    if not features:
        raise ValueError("a codec needs at least one feature")
    schema = build_schema(event, features, max_future_us)
    if layout == "table":
        return TableCodec(schema)
    if schema.format == "float32":
        return Float32Codec(schema)
    return MessageCodec(schema)
