"""Texts that both databases can store.

PostgreSQL rejects NUL and lone surrogates. One such character in an event key, a feature name or a file path must not
stop a stream.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

TextColumn = Sequence[str | None]
"""The values of a text column; None is NULL."""


def make_storable(texts: TextColumn) -> TextColumn:
    """Return texts that both databases can store: NUL and lone surrogates become U+FFFD."""
    if is_storable("".join(text for text in texts if text is not None)):
        return texts
    return [None if text is None else _replace_unstorable(text) for text in texts]


def is_storable(text: str) -> bool:
    """Return whether both databases can store the text unchanged."""
    return "\x00" not in text and (text.isascii() or _is_utf8_encodable(text))


class StorableText(sa.TypeDecorator[str]):
    """TEXT that makes bound values storable, both when they are written and when they are compared."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        """Return the value to store."""
        return value if value is None or is_storable(value) else _replace_unstorable(value)


def _replace_unstorable(text: str) -> str:
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_utf8_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
