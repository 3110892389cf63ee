"""Facts, escaping and templates of messages."""

import pytest

from config.errors import ConfigError
from monitor.notify.escaping import escape_mentions, escape_plain, shorten
from monitor.notify.facts import message_facts
from monitor.notify.links import PageLinks
from monitor.notify.template_check import find_problem
from monitor.notify.templates import TextTemplate
from tests.unit.monitor.notify.messages import make_message

LINKS = PageLinks(server_url="https://outrider.example/base")
HOSTILE = "x\r\nBcc: all@example.org\u202e <!channel> @here"


def test_links_lead_to_the_incident_and_its_stream() -> None:
    facts = message_facts(make_message(stream="a/b"), LINKS)
    assert facts.incident_url == "https://outrider.example/base/incidents/7"
    assert facts.stream_url == "https://outrider.example/base/streams/a%2Fb"


def test_message_has_no_links_without_the_address_of_the_server() -> None:
    facts = message_facts(make_message(), PageLinks(server_url=None))
    assert (facts.incident_url, facts.stream_url) == (None, None)


def test_test_message_is_marked_and_has_no_link_to_an_incident() -> None:
    facts = message_facts(make_message(test=True, incident_id=0, kind="test"), LINKS)
    assert facts.headline == "TEST: [warning] test on payments opened"
    assert (facts.incident_url, facts.stream_url) == (None, None)


def test_plain_text_has_no_line_breaks_and_no_marks_of_direction() -> None:
    assert escape_plain(HOSTILE) == "x  Bcc: all@example.org  <!channel> @here"


def test_mentions_are_broken() -> None:
    escaped = escape_mentions(HOSTILE)
    assert "<!" not in escaped
    assert "@here" not in escaped


def test_shortened_text_ends_with_dots() -> None:
    assert (shorten("abcdef", 6), shorten("abcdefg", 6)) == ("abcdef", "abc...")


def test_values_of_a_template_are_escaped_and_its_own_text_is_not() -> None:
    template = TextTemplate("<b>{{ summary }}</b>\n{{ details.n }}", escape_plain)
    facts = message_facts(make_message(summary=HOSTILE, details={"n": 3}), LINKS)
    assert template.render(facts) == f"<b>{escape_plain(HOSTILE)}</b>\n3"


def test_event_text_is_no_template() -> None:
    facts = message_facts(make_message(summary="{{ stream }}"), LINKS)
    assert TextTemplate("{{ summary }}", escape_plain).render(facts) == "{{ stream }}"


def test_template_that_is_not_valid_is_an_error() -> None:
    with pytest.raises(ConfigError, match="template: is not valid"):
        TextTemplate("{{ summary", escape_plain)


@pytest.mark.parametrize("source", ["{{ nothing }}", "{{ details.x.y }}", "{{ ''.__class__.__mro__ }}", "{{ 1 / 0 }}"])
def test_template_that_fails_leaves_the_built_in_text(source: str, caplog: pytest.LogCaptureFixture) -> None:
    assert TextTemplate(source, escape_plain).render(message_facts(make_message(), LINKS)) is None
    assert "the built-in text is sent" in caplog.text


@pytest.mark.parametrize("source", ["", "{% if false %}x{% endif %}  \n"])
def test_no_template_and_an_empty_text_leave_the_built_in_text(source: str) -> None:
    causes: list[str] = []
    assert TextTemplate(source, escape_plain, causes.append).render(message_facts(make_message(), LINKS)) is None
    assert causes == ([] if source == "" else ["it gives an empty text"])


@pytest.mark.parametrize(
    ("source", "is_error"),
    [
        ("{{ summary", True),
        ("{{ sumary }}", True),
        ("{% if transition == 'resolved' %}{{ nothing }}{% else %}x{% endif %}", True),
        ("{{ incident_url.upper() }}", True),
        ("{{ details.outliers }}", False),
        ("{{ '%.1f' | format(details.outliers) }}", False),
    ],
)
def test_problem_of_a_template_is_found_before_the_first_incident(source: str, *, is_error: bool) -> None:
    problem = find_problem(source)
    assert problem is not None
    assert problem.is_error == is_error


@pytest.mark.parametrize(
    "source", ["{{ summary }}", "{% if details.x is defined %}{{ details.x }}{% endif %} of {{ kind }}"]
)
def test_template_without_a_problem_has_none(source: str) -> None:
    assert find_problem(source) is None
