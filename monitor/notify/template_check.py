"""A check of the templates of all channels on sample messages, before the first incident."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from config.errors import ConfigError
from config.notify import IncidentKind, NotifySettings
from monitor.notify.facts import MessageFacts
from monitor.notify.templates import TextTemplate

_TIME = "2026-01-01T00:00:00.000000Z"
_TRANSITIONS = ("opened", "escalated", "repeated", "acknowledged", "resolved", "reopened")


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateProblem:
    """A problem of the template of a channel.

    Attributes:
        text: The setting and the cause.
        is_error: Whether the template fails for each message of some kind; otherwise only where a detail is missing.
    """

    text: str
    is_error: bool


class _AllDetails(dict[str, Any]):
    """Details in which every name has a number."""

    def __missing__(self, key: str) -> float:
        return 1.0


def find_template_problems(settings: NotifySettings) -> Iterator[TemplateProblem]:
    """Yield the problems of the templates of all channels; at most one for each channel."""
    for name, channel in settings.channels.items():
        source = getattr(channel, "template", "")
        problem = find_problem(source) if source else None
        if problem is not None:
            yield TemplateProblem(text=f"notify.channels.{name}.{problem.text}", is_error=problem.is_error)


def find_problem(source: str) -> TemplateProblem | None:
    """Return the problem of a template, or None."""
    causes: list[str] = []
    try:
        template = TextTemplate(source, str, causes.append)
    except ConfigError as error:
        return TemplateProblem(text=str(error), is_error=True)
    for facts in _samples(_AllDetails()):
        if template.render(facts) is None:
            text = f"template: fails for a message {facts.kind} {facts.transition}: {causes[0]}; see docs/alerts.md"
            return TemplateProblem(text=text, is_error=True)
    if any(template.render(facts) is None for facts in _samples({})):
        text = (
            f"template: fails where a detail is missing ({causes[0]}); details differ by kind, and the built-in text "
            "is sent in this case; write {% if details.NAME is defined %}"
        )
        return TemplateProblem(text=text, is_error=False)
    return None


def _samples(details: Mapping[str, Any]) -> Iterator[MessageFacts]:
    """Yield a message of each kind and transition, with and without the address of the page."""
    for kind in get_args(IncidentKind):
        for transition in _TRANSITIONS:
            for url in (None, "https://outrider.example"):
                yield MessageFacts(
                    headline=f"[warning] {kind} on payments {transition}",
                    summary="30 outliers among 60 events",
                    stream="payments",
                    kind=kind,
                    severity="critical" if transition == "escalated" else "warning",
                    transition=transition,
                    incident_id=1,
                    window_start=_TIME,
                    at=_TIME,
                    incident_url=None if url is None else f"{url}/incidents/1",
                    stream_url=None if url is None else f"{url}/streams/payments",
                    details=details,
                    test=False,
                )
