"""The PagerDuty channel: incidents are triggered, acknowledged and resolved by the Events API v2."""

import json
import time
from collections.abc import Callable
from typing import Any

import msgspec

from config.channels.pagerduty import PagerDutyChannelSettings
from monitor.notify.delivery import DeliveryResult, retry
from monitor.notify.escaping import escape_plain, shorten
from monitor.notify.facts import MessageFacts, message_facts
from monitor.notify.http_answer import interpret_response, quote_answer, user_agent
from monitor.notify.http_post import PostError, PostTarget, post
from monitor.notify.links import PageLinks
from monitor.notify.templates import TemplateFailureHandler, TextTemplate, log_template_failure
from storage.control.outbox import Message

_MAX_SUMMARY_CHARACTERS = 1_024
_MAX_DETAILS_BYTES = 100_000
"""PagerDuty refuses events of more than 512 KiB."""

_ACTIONS = {"acknowledged": "acknowledge", "resolved": "resolve"}
"""The action for each transition; all others trigger, which adds to an open incident of the same key."""


class PagerDuty:
    """A channel that sends each transition as an event of one incident."""

    concurrency = 2

    def __init__(
        self,
        settings: PagerDutyChannelSettings,
        links: PageLinks,
        read_database_id: Callable[[], str],
        on_template_failure: TemplateFailureHandler = log_template_failure,
    ) -> None:
        self.timeout_s = settings.timeout.total_seconds()
        self._key = settings.routing_key
        self._target = PostTarget.from_url(settings.url)
        self._links = links
        self._read_database_id = read_database_id
        self._summary = TextTemplate(settings.template, escape_plain, on_template_failure)

    def send(self, message: Message) -> DeliveryResult:
        """Send an event; a repeated one has the same key and changes nothing."""
        body = msgspec.json.encode(self.build_event(message))  # NaN and infinities become null
        headers = {"Content-Type": "application/json", "User-Agent": user_agent()}
        try:
            response = post(self._target, body, headers, self.timeout_s)
        except PostError as error:
            return retry(error.reason, str(error))
        quote = quote_answer(response.body_excerpt, [self._key])
        return interpret_response(response, now_s=time.time(), quote=quote)

    def build_event(self, message: Message) -> dict[str, Any]:
        """Return the event of a message."""
        action = _ACTIONS.get(message.transition, "trigger")
        event: dict[str, Any] = {
            "routing_key": self._key,
            "event_action": action,
            "dedup_key": dedup_key(self._read_database_id(), message.incident_id),
        }
        if action != "trigger":
            return event
        facts = message_facts(message, self._links)
        event |= {"payload": self._build_payload(facts), "client": "Outrider", "links": _links(facts)}
        return event | ({"client_url": facts.incident_url} if facts.incident_url else {})

    def _build_payload(self, facts: MessageFacts) -> dict[str, Any]:
        summary = self._summary.render(facts) or f"{facts.headline}: {facts.summary}"
        return {
            "summary": shorten(escape_plain(summary), _MAX_SUMMARY_CHARACTERS),
            "source": facts.stream,
            "severity": facts.severity,
            "timestamp": facts.at,
            "component": facts.stream,
            "class": facts.kind,
            "custom_details": {
                "incident": facts.incident_id,
                "transition": facts.transition,
                "summary": facts.summary,
                "window_start": facts.window_start,
                "details": _bound(dict(facts.details)),
            },
        }


def dedup_key(database_id: str, incident_id: int) -> str:
    """Return the key of the incident, the same for all its messages."""
    return f"outrider/{database_id}/{incident_id}"


def _links(facts: MessageFacts) -> list[dict[str, str]]:
    pages = (("Incident", facts.incident_url), ("Stream", facts.stream_url))
    return [{"href": url, "text": text} for text, url in pages if url is not None]


def _bound(details: dict[str, Any]) -> dict[str, Any]:
    """Return the details without their largest values if they are too large together."""
    sizes = {name: len(json.dumps(value, default=str)) for name, value in details.items()}
    total, kept = 0, {}
    for name in sorted(sizes, key=lambda each: sizes[each]):
        total += sizes[name]
        kept[name] = details[name] if total <= _MAX_DETAILS_BYTES else "(left out: too large)"
    return {name: kept[name] for name in details}
