"""Cursors of lists: the key of the last row, as an opaque text."""

import base64
import binascii
import json
from collections.abc import Sequence

from monitor.server.problems import ApiError

MAX_CURSOR_LENGTH = 400
_MAX_INT = 2**63
_MAX_TEXT_LENGTH = 200


def encode_cursor(key: Sequence[int | str]) -> str:
    """Return a key as a cursor."""
    text = json.dumps(list(key), separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode("ascii").rstrip("=")


def decode_cursor(cursor: str, types: Sequence[type]) -> list[int | str]:
    """Return the key of a cursor.

    Args:
        cursor: The cursor.
        types: The types of the parts of the key.

    Raises:
        ApiError: The cursor was not made by `encode_cursor` for a key of this form.
    """
    try:
        key = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        key = None
    if not isinstance(key, list) or [type(part) for part in key] != list(types) or not all(map(_is_bounded, key)):
        raise ApiError(422, "cursor: is not one that this list has returned; take `next` of the page before")
    return key


def _is_bounded(part: int | str) -> bool:
    if isinstance(part, str):
        return len(part) <= _MAX_TEXT_LENGTH and part.isprintable()
    return -_MAX_INT <= part < _MAX_INT
