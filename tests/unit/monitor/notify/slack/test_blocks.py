"""Messages as Block Kit: Slack's limits and the escaping of texts of events."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.notify.facts import MessageFacts, message_facts
from monitor.notify.links import PageLinks
from monitor.notify.slack.blocks import MAX_BLOCKS, build_change, build_fallback, build_incident, escape, limit_blocks
from tests.unit.monitor.notify.messages import make_message

PAGE = "https://outrider.example/incidents/7"


def make_facts(**changes: Any) -> MessageFacts:
    return message_facts(make_message(**changes), PageLinks(server_url="https://outrider.example"))


def texts(content: Any) -> list[str]:
    if isinstance(content, dict):
        own = [content["text"]] if isinstance(content.get("text"), str) else []
        return own + [text for value in content.values() for text in texts(value)]
    return [text for value in content for text in texts(value)] if isinstance(content, list) else []


def test_a_message_names_the_incident_its_state_and_its_page() -> None:
    built = build_incident(make_facts(incident_id=7, transition="escalated", severity="critical"))
    text = json.dumps(built)
    assert f"<{PAGE}|Incident 7>" in text
    assert "open, more severe" in text
    assert ":red_circle:" in text
    assert [block["type"] for block in built["blocks"]] == ["header", "section", "section", "context"]


def test_a_mention_in_the_text_of_an_event_notifies_nobody() -> None:
    evil = "<!channel> <@U123> <https://evil.example|click> & <!here>"
    message = replace(make_facts(summary=evil, stream="a<!channel>"), incident_url=None)
    for built in (build_incident(message), build_change(message)):
        for text in texts(built):
            assert "<" not in text
            assert ">" not in text
        assert "&lt;!channel&gt;" in json.dumps(built)
    assert "<" not in build_fallback(message)


@given(st.text(max_size=30).map(lambda text: text * 200))
def test_every_text_is_within_the_limits_of_slack(summary: str) -> None:
    message = make_facts(summary=summary)
    for built in (build_incident(message), build_change(message)):
        assert len(built["blocks"]) <= MAX_BLOCKS
        for block in built["blocks"]:
            if block["type"] == "header":
                assert 0 < len(block["text"]["text"]) <= 150
            elif "text" in block:
                assert 0 < len(block["text"]["text"]) <= 3_000
            for field in block.get("fields", ()):
                assert 0 < len(field["text"]) <= 2_000
            assert len(block.get("fields", ())) <= 10
        assert len(built["text"]) <= 4_000


@given(st.text(alphabet="&<>ab\x00\n", max_size=40).map(lambda text: text * 100))
def test_no_entity_is_cut(summary: str) -> None:
    section = build_incident(make_facts(summary=summary))["blocks"][1]["text"]["text"]
    rest = section.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
    assert not set("&<>\x00") & set(rest)


def test_more_than_fifty_blocks_are_cut_with_a_note() -> None:
    blocks = [{"type": "divider"}] * 60
    cut = limit_blocks(blocks)
    assert len(cut) == MAX_BLOCKS
    assert "11 more" in cut[-1]["elements"][0]["text"]
    assert limit_blocks(blocks[:50]) == blocks[:50]


@pytest.mark.parametrize(("text", "escaped"), [("a & b", "a &amp; b"), ("<x>", "&lt;x&gt;"), ("a\tb\nc", "a b c")])
def test_three_characters_are_escaped(text: str, escaped: str) -> None:
    assert escape(text) == escaped
