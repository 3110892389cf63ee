"""Escaping of texts from events for the receivers of messages. Each function returns a text of one line.

Keys, names of features and values come from the events, so that a producer could write a command of a chat system or a
header of a mail into them.
"""

import re

_MENTION = re.compile(r"(<)(?=[!@#])|(@)(?=\w)")
_ZERO_WIDTH_SPACE = "\u200b"


def escape_plain(text: str) -> str:
    """Replace control characters, line breaks and marks of text direction by spaces."""
    return "".join(char if char.isprintable() else " " for char in text)


def escape_mentions(text: str) -> str:
    """Escape as plain text, and break commands of chat systems (`@here`, `<!channel>`) by an invisible space."""
    return _MENTION.sub(lambda found: found[0] + _ZERO_WIDTH_SPACE, escape_plain(text))


def shorten(text: str, max_characters: int) -> str:
    """Return the text, cut to a number of characters with `...` at its end."""
    return text if len(text) <= max_characters else text[: max_characters - 3] + "..."
