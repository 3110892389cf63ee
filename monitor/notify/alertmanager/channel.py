"""The channel that posts alerts to all Alertmanagers, at each transition and at an interval."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import msgspec

from config.channels.alertmanager import AlertmanagerChannelSettings
from config.time_format import format_time
from config.units import to_us
from monitor.notify.alertmanager.alerts import AlertSpan, alert_labels, alert_spans, recent_us
from monitor.notify.delivery import DeliveryResult, delivered, retry
from monitor.notify.escaping import escape_mentions
from monitor.notify.facts import message_facts
from monitor.notify.http_answer import interpret_response, quote_answer, user_agent
from monitor.notify.http_post import PostError, PostTarget, post
from monitor.notify.links import PageLinks
from monitor.notify.templates import TemplateFailureHandler, TextTemplate, log_template_failure
from storage.control.outbox import Message
from storage.database.engine import Database
from storage.queries.told_incidents import (
    ToldIncident,
    ToldTransition,
    read_told_incidents,
    read_told_transitions,
)

_API_PATH = "/api/v2/alerts"
_BATCH_INCIDENTS = 100
"""Incidents of one request."""


class AlertStates(Protocol):
    """The incidents that the channel was told of."""

    def transitions_before(self, message: Message) -> list[ToldTransition]:
        """Return the transitions of the message's incident that the channel got before it."""
        ...

    def incidents_after(self, incident_id: int, *, recent_us: int, limit: int) -> tuple[int, list[ToldIncident]]:
        """Return the time, and up to `limit` incidents to send again with ids above `incident_id`."""
        ...


class StoredAlertStates:
    """The incidents of a channel in the database."""

    def __init__(self, db: Database, channel: str) -> None:
        self._db = db
        self._channel = channel

    def transitions_before(self, message: Message) -> list[ToldTransition]:
        """Return the transitions of the message's incident that the channel got before it."""
        return read_told_transitions(self._db, self._channel, message.incident_id, message.sequence)

    def incidents_after(self, incident_id: int, *, recent_us: int, limit: int) -> tuple[int, list[ToldIncident]]:
        """Return the time, and up to `limit` incidents to send again with ids above `incident_id`."""
        return read_told_incidents(self._db, self._channel, recent_us=recent_us, after_id=incident_id, limit=limit)


class Alertmanager:
    """A level-triggered channel: one thread of one daemon sends its messages and repeats all open incidents."""

    concurrency = 1

    def __init__(
        self,
        settings: AlertmanagerChannelSettings,
        links: PageLinks,
        states: AlertStates | None,
        on_template_failure: TemplateFailureHandler = log_template_failure,
    ) -> None:
        """Build the channel; `states` is None for test messages."""
        self.timeout_s = settings.timeout.total_seconds()
        self.interval_s = settings.interval.total_seconds()
        self._interval_us = to_us(settings.interval)
        self._settings = settings
        self._targets = [PostTarget.from_url(url.rstrip("/") + _API_PATH) for url in settings.urls]
        self._links = links
        self._states = states
        self._summary = TextTemplate(settings.template, escape_mentions, on_template_failure)
        self._pool = ThreadPoolExecutor(len(self._targets), thread_name_prefix="alertmanager")

    def send(self, message: Message) -> DeliveryResult:
        """Post the alerts of a message's incident; delivered if one Alertmanager accepts them.

        The others of a cluster get them with the next repetition.
        """
        now_us = time.time_ns() // 1_000
        told = [] if message.test or self._states is None else self._states.transitions_before(message)
        last = ToldTransition(
            transition=message.transition,
            severity=message.severity,
            recorded_at_us=message.created_at_us,
            told_at_us=now_us,
        )
        spans = alert_spans([*told, last], now_us=now_us, interval_us=self._interval_us)
        results = self._post([self._build_alert(message, span) for span in spans])
        return _combine(results)

    def repeat(self, may_continue: Callable[[], bool]) -> list[DeliveryResult]:
        """Post the alerts of all incidents, in batches; return the attempts that failed.

        Args:
            may_continue: Called before each batch; False ends the repetition, since another daemon goes on.
        """
        failed: list[DeliveryResult] = []
        for alerts in self._alert_batches():
            if not may_continue():
                break
            failed += [each for each in self._post(alerts) if each.outcome != "delivered"]
        return failed

    def close(self) -> None:
        """End the threads that post."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _alert_batches(self) -> Iterator[list[dict[str, Any]]]:
        after_id = 0
        while self._states is not None:
            now_us, incidents = self._states.incidents_after(
                after_id, recent_us=recent_us(self._interval_us), limit=_BATCH_INCIDENTS
            )
            alerts = [
                self._build_alert(incident.latest, span)
                for incident in incidents
                for span in alert_spans(incident.transitions, now_us=now_us, interval_us=self._interval_us)
            ]
            if alerts:
                yield alerts
            if len(incidents) < _BATCH_INCIDENTS:
                return
            after_id = incidents[-1].incident_id

    def _build_alert(self, message: Message, span: AlertSpan) -> dict[str, Any]:
        facts = message_facts(message, self._links)
        labels = alert_labels(
            stream=message.stream,
            kind=message.kind,
            severity=span.severity,
            incident_id=message.incident_id,
            own=self._settings.labels,
        )
        alert: dict[str, Any] = {
            "labels": labels,
            "annotations": {
                "summary": self._summary.render(facts) or escape_mentions(f"{facts.headline}: {facts.summary}"),
                "description": escape_mentions(facts.summary),
                "transition": facts.transition,
                "event_time": facts.at,
            },
            "startsAt": format_time(span.starts_at_us),
            "endsAt": format_time(span.ends_at_us),
        }
        return alert | ({"generatorURL": facts.incident_url} if facts.incident_url else {})

    def _post(self, alerts: Sequence[Mapping[str, Any]]) -> list[DeliveryResult]:
        """Post alerts to all Alertmanagers at once, so that one that hangs delays the others by nothing."""
        if not alerts:
            return []
        body = msgspec.json.encode(alerts)
        return list(self._pool.map(lambda target: self._post_to(target, body), self._targets))

    def _post_to(self, target: PostTarget, body: bytes) -> DeliveryResult:
        headers = {"Content-Type": "application/json", "User-Agent": user_agent()}
        try:
            response = post(target, body, headers | self._settings.headers, self.timeout_s)
        except PostError as error:
            return retry(error.reason, str(error))
        quote = quote_answer(response.body_excerpt, self._settings.headers.values())
        result = interpret_response(response, now_s=time.time(), quote=quote)
        return result if result.outcome == "delivered" else _at(target, result)


def _at(target: PostTarget, result: DeliveryResult) -> DeliveryResult:
    return DeliveryResult(
        outcome=result.outcome,
        reason=result.reason,
        detail=f"{target.place} {result.detail}",
        retry_after_s=result.retry_after_s,
    )


def _combine(results: Sequence[DeliveryResult]) -> DeliveryResult:
    """Return the result of a message from those of the Alertmanagers."""
    if not results:
        return delivered("nothing to send")
    failed = [each for each in results if each.outcome != "delivered"]
    if len(failed) < len(results):
        missing = f"; {'; '.join(each.detail for each in failed)}" if failed else ""
        return delivered(f"{len(results) - len(failed)} of {len(results)} accepted{missing}")
    return next((each for each in failed if each.outcome == "retry"), failed[0])
