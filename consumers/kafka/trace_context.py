"""The trace of a record, from its header `traceparent` (W3C Trace Context)."""

from __future__ import annotations

import re

TRACEPARENT = b"traceparent"
"""Name of the header. Header names of Kafka are case-sensitive; tracing libraries write it in lower case."""

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?", re.DOTALL)
_INVALID_VERSION = b"ff"
_KNOWN_VERSION = b"00"
_KNOWN_LENGTH = 55


def parse_trace_id(value: bytes | None) -> str | None:
    """Return the 32 hexadecimal digits of the trace in a header; None if the header has another form.

    Version 00 has exactly four parts; later versions may have more behind them. Version ff and ids of zeros alone are
    invalid (W3C Trace Context, section 3.2).
    """
    found = None if value is None else _TRACEPARENT.fullmatch(value)
    if found is None:
        return None
    version, trace_id, parent_id = found.groups()
    is_longer = version == _KNOWN_VERSION and len(found.string) != _KNOWN_LENGTH
    if version == _INVALID_VERSION or is_longer or not trace_id.strip(b"0") or not parent_id.strip(b"0"):
        return None
    return trace_id.decode()
