"""A message as Slack's Block Kit. Pure.

Texts of events are escaped: `&`, `<` and `>` are the only characters that start a mention or a link in mrkdwn, so that
`<!channel>` in a key notifies nobody. `verbatim` keeps Slack from turning addresses and names into links.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from monitor.notify.escaping import escape_plain
from monitor.notify.facts import MessageFacts
from monitor.notify.wording import describe_state, list_facts

MAX_BLOCKS = 50
_MAX_HEADER_CHARACTERS = 150
_MAX_SECTION_CHARACTERS = 3_000
_MAX_FIELDS = 10
_MAX_FIELD_CHARACTERS = 2_000
_MAX_FALLBACK_CHARACTERS = 4_000

_MARKS = {"critical": ":red_circle:", "warning": ":large_orange_circle:"}
_RESOLVED_MARK = ":white_check_mark:"

Block = Mapping[str, Any]


def escape(text: str) -> str:
    """Return a text in which no character has a meaning for Slack; control characters become spaces."""
    return escape_plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def build_incident(facts: MessageFacts, own_text: str | None = None) -> dict[str, Any]:
    """Return the message of an incident in the state after a transition: `text` for notifications, and `blocks`.

    Args:
        facts: The facts of the message.
        own_text: A text in mrkdwn, with its values escaped, that takes the place of the summary and the list of facts.
    """
    fields = [f"*{escape(label)}:* {escape(value)}" for label, value in list_facts(facts)]
    listed: Block = {
        "type": "section",
        "fields": [_mrkdwn(each, _MAX_FIELD_CHARACTERS) for each in fields[:_MAX_FIELDS]],
    }
    body = [_section(escape(facts.summary)), listed] if own_text is None else [_section(own_text)]
    blocks: list[Block] = [_header(_format_headline(facts)), *body, _context(_format_origin(facts))]
    return {"text": build_fallback(facts), "blocks": limit_blocks(blocks)}


def build_change(facts: MessageFacts, own_text: str | None = None) -> dict[str, Any]:
    """Return the message of one transition, for the thread of its incident; see `build_incident`."""
    state = f"{_find_mark(facts)} *{escape(describe_state(facts))}* ({escape(facts.severity)}), {facts.at}"
    blocks: list[Block] = [_section(f"{state}\n{escape(facts.summary) if own_text is None else own_text}")]
    return {"text": build_fallback(facts), "blocks": limit_blocks(blocks)}


def build_fallback(facts: MessageFacts) -> str:
    """Return the message as one text, for notifications and for programs that show no blocks."""
    return _shorten(f"{escape(_format_headline(facts))}: {escape(facts.summary)}", _MAX_FALLBACK_CHARACTERS)


def limit_blocks(blocks: Sequence[Block]) -> list[Block]:
    """Return at most 50 blocks, which is Slack's limit; the last one says how many are left out."""
    if len(blocks) <= MAX_BLOCKS:
        return list(blocks)
    left_out = len(blocks) - MAX_BLOCKS + 1
    return [*blocks[: MAX_BLOCKS - 1], _context(f"{left_out} more parts of this message are not shown")]


def _format_headline(facts: MessageFacts) -> str:
    if facts.test:
        return f"Test message: {describe_state(facts)}"
    return f"{facts.kind.replace('_', ' ').capitalize()} on {facts.stream}: {describe_state(facts)}"


def _format_origin(facts: MessageFacts) -> str:
    if facts.test:
        return f"{_find_mark(facts)} `outrider notify test`: this belongs to no incident"
    name = f"Incident {facts.incident_id}"
    link = name if facts.incident_url is None else f"<{escape(facts.incident_url).replace('|', '%7C')}|{name}>"
    return f"{_find_mark(facts)} {link}, last change {facts.at}"


def _find_mark(facts: MessageFacts) -> str:
    return _RESOLVED_MARK if facts.transition == "resolved" else _MARKS.get(facts.severity, _MARKS["critical"])


def _header(text: str) -> Block:
    shortened = _shorten(" ".join(escape(text).split()), _MAX_HEADER_CHARACTERS)
    return {"type": "header", "text": {"type": "plain_text", "text": shortened, "emoji": False}}


def _section(text: str) -> Block:
    return {"type": "section", "text": _mrkdwn(text, _MAX_SECTION_CHARACTERS)}


def _context(text: str) -> Block:
    return {"type": "context", "elements": [_mrkdwn(text, _MAX_FIELD_CHARACTERS)]}


def _mrkdwn(text: str, limit: int) -> Block:
    # Slack refuses an empty text.
    return {"type": "mrkdwn", "text": _shorten(text, limit) if text.strip() else "-", "verbatim": True}


def _shorten(text: str, limit: int) -> str:
    """Return at most `limit` characters of an escaped text; an entity is not cut."""
    if len(text) <= limit:
        return text
    cut = text[: limit - 3]
    start = cut.rfind("&")
    if start >= 0 and ";" not in cut[start:]:
        cut = cut[:start]
    return f"{cut}..."
