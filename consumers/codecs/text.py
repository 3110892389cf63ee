"""Text from events, cleaned for databases and logs: without NUL and lone surrogates, and of bounded length."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

REPLACEMENT = "�"
MAX_KEY_CHARS = 256
MAX_DETAIL_CHARS = 200


def clean_text(text: str, limit: int) -> str:
    """Return the text cut to `limit` characters, with NUL and lone surrogates replaced.

    PostgreSQL rejects NUL in text, and UTF-8 cannot encode lone surrogates.
    """
    text = text[:limit]
    if "\0" in text:
        text = text.replace("\0", REPLACEMENT)
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text[:limit]


def scalar_text(value: object) -> str | None:
    """Return a scalar as text in JSON notation. Return None for null, objects and lists."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number_text(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.isoformat() if isinstance(value, datetime) else None


def number_text(value: float) -> str:
    """Return a number as text. A very large integer is described by its size.

    Python raises ValueError when it converts an integer of thousands of digits to text.
    """
    if isinstance(value, int) and value.bit_length() > 1_000:
        return f"an integer of {value.bit_length()} bits"
    return str(value)


def text_column(values: Sequence[object]) -> list[str | None]:
    """Return a column of scalars as clean text of at most MAX_KEY_CHARS characters, with None for other values."""
    texts: list[str | None] = [
        value if type(value) is str else scalar_text(value)  # the common case without a call
        for value in values
    ]
    present = [text for text in texts if text is not None]
    joined = "".join(present)
    if not joined.isascii() or "\0" in joined or max(map(len, present), default=0) > MAX_KEY_CHARS:
        return [None if text is None else _clean_key(text) for text in texts]
    return texts


def _clean_key(text: str) -> str:
    return (
        text if len(text) <= MAX_KEY_CHARS and text.isascii() and "\0" not in text else clean_text(text, MAX_KEY_CHARS)
    )


def key_column(values: Sequence[bytes | None]) -> list[str | None] | None:
    """Return a column of Kafka keys as clean text, or None if no record has a key."""
    if not any(value is not None for value in values):
        return None
    return text_column(values)


def describe_value(value: object) -> str:
    """Return a short description of a value for a dead letter's detail: its representation in Python."""
    if isinstance(value, str | bytes):
        return clean_text(repr(value[:MAX_DETAIL_CHARS]), MAX_DETAIL_CHARS)
    if isinstance(value, int | float):
        return number_text(value)
    if isinstance(value, list | tuple | dict):
        kind = "an object" if isinstance(value, dict) else "a list"
        return f"{kind} of {len(value)}"
    return clean_text(repr(value), MAX_DETAIL_CHARS)
