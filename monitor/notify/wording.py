"""The texts of a message that chat and mail have in common: state and facts. Plain text, not escaped. Pure."""

from collections.abc import Iterator

from monitor.notify.facts import MessageFacts

_STATES = {
    "opened": "open",
    "escalated": "open, more severe",
    "repeated": "still open",
    "acknowledged": "acknowledged",
    "resolved": "resolved",
    "reopened": "open again",
}

_NUMBERS = (
    ("Events", "events"),
    ("Outliers", "outliers"),
    ("Expected outliers", "outliers_expected"),
    ("Windows that fired", "windows_fired"),
)
"""Numbers of the details of some kinds, with their labels."""


def describe_state(facts: MessageFacts) -> str:
    """Return the state of the incident after the transition, as words."""
    return _STATES.get(facts.transition, facts.transition)


def list_facts(facts: MessageFacts) -> Iterator[tuple[str, str]]:
    """Yield the facts of a message as label and value, without the summary."""
    yield "State", describe_state(facts)
    yield "Severity", facts.severity
    yield "Stream", facts.stream
    yield "Kind", facts.kind.replace("_", " ")
    yield "Window", facts.window_start
    for label, key in _NUMBERS:
        value = facts.details.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield label, f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
