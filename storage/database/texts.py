"""Storage room: texts that both databases can hold.

PostgreSQL refuses NUL and lone surrogates, and one such key of an event, name of a feature or path of a file must not
stop a stream.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

TextColumn = Sequence[str | None]


def make_storable(texts: TextColumn) -> TextColumn:
    """Return texts that both databases can hold: NUL and lone surrogates become U+FFFD."""
    together = "".join(text for text in texts if text is not None)
    if is_storable(together):
        return texts
    return [None if text is None else _replace_unstorable(text) for text in texts]


def is_storable(text: str) -> bool:
    """Return whether both databases can hold the text as it is."""
    return "\x00" not in text and (text.isascii() or _is_utf8_encodable(text))


class StorableText(sa.TypeDecorator[str]):
    """TEXT whose values are made storable when they are written, and when something is compared with them."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        """Return the value as it is stored."""
        return value if value is None or is_storable(value) else _replace_unstorable(value)


def _replace_unstorable(text: str) -> str:
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_utf8_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
