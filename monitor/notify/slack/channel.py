"""The Slack channel in its two forms: a bot that changes its messages, and an incoming webhook that can only post."""

import time
from dataclasses import replace
from typing import Any

from config.channels.slack import SlackChannelSettings
from config.errors import StorageUnavailable
from monitor.notify.channel import Channel
from monitor.notify.delivery import DeliveryResult, FailureReason, delivered, retry
from monitor.notify.facts import message_facts
from monitor.notify.http_post import PostTarget
from monitor.notify.links import PageLinks
from monitor.notify.slack.answers import GONE_ERRORS
from monitor.notify.slack.blocks import build_change, build_incident, escape
from monitor.notify.slack.posted import PostedMessages
from monitor.notify.slack.requests import SlackAnswer, SlackRequests
from monitor.notify.templates import TemplateFailureHandler, TextTemplate, log_template_failure
from storage.control.outbox import Message
from storage.control.posted_messages import PostedMessage

_BROADCAST = frozenset({"escalated", "reopened"})
"""Transitions that are shown in the channel as well as in the thread: a change of a message notifies nobody."""

_MAX_UNRECORDED = 100


def build_slack(
    settings: SlackChannelSettings,
    links: PageLinks,
    posted: PostedMessages,
    on_template_failure: TemplateFailureHandler = log_template_failure,
) -> Channel:
    """Return the form of the channel that the settings describe."""
    texts = SlackTexts(links, TextTemplate(settings.template, escape, on_template_failure))
    return SlackWebhook(settings, texts) if settings.webhook_url else SlackBot(settings, texts, posted)


class SlackTexts:
    """Builds the messages of a channel from its template, or from the built-in text."""

    def __init__(self, links: PageLinks, template: TextTemplate) -> None:
        self._links = links
        self._template = template

    def build_incident(self, message: Message) -> dict[str, Any]:
        """Return the message of the incident after a transition."""
        facts = message_facts(message, self._links)
        return _UNLINKED | build_incident(facts, self._template.render(facts))

    def build_change(self, message: Message) -> dict[str, Any]:
        """Return the message of a transition for the thread of its incident."""
        facts = message_facts(message, self._links)
        return _UNLINKED | build_change(facts, self._template.render(facts))


class SlackBot:
    """Posts one message per incident, changes it at each transition, and tells the changes in its thread.

    The message is recorded after Slack has accepted it, with the notification that it was posted for. A process that is
    killed between the two posts the message, or the change in the thread, once more; nothing else is repeated.
    """

    concurrency = 1

    def __init__(self, settings: SlackChannelSettings, texts: SlackTexts, posted: PostedMessages) -> None:
        self.timeout_s = settings.timeout.total_seconds()
        self._settings = settings
        self._texts = texts
        self._posted = posted
        self._requests = SlackRequests([settings.token], is_api=True)
        self._unrecorded: dict[tuple[str, int], PostedMessage] = {}

    def send(self, message: Message) -> DeliveryResult:
        """Post the message of an incident, or change it and tell the change in its thread."""
        deadline_s = time.monotonic() + self.timeout_s
        try:
            posted = self._find(message)
        except StorageUnavailable as error:
            return retry(FailureReason.UNKNOWN, f"the message of the incident cannot be read: {error}")
        if posted is None or posted.target != self._settings.channel:
            return self._post(message, deadline_s)
        if posted.notification_id == message.id:
            return delivered("posted before")
        changed = self._call("chat.update", _address(posted) | self._texts.build_incident(message), deadline_s)
        if changed.error in GONE_ERRORS:
            return self._post(message, deadline_s)
        if not changed.is_ok:
            return changed.result
        return self._tell_change(message, posted, deadline_s)

    def _find(self, message: Message) -> PostedMessage | None:
        """Return the message of the incident; one that could not be recorded is recorded now."""
        key = (message.channel, message.incident_id)
        unrecorded = self._unrecorded.get(key)
        if unrecorded is None:
            return self._posted.find(*key)
        self._posted.record(*key, unrecorded)
        del self._unrecorded[key]
        return unrecorded

    def _post(self, message: Message, deadline_s: float) -> DeliveryResult:
        content = {"channel": self._settings.channel} | self._texts.build_incident(message)
        answer = self._call("chat.postMessage", content, deadline_s)
        if not answer.is_ok:
            return answer.result
        place, reference = answer.content.get("channel"), answer.content.get("ts")
        if not isinstance(place, str) or not isinstance(reference, str):
            return delivered("posted, but Slack's answer does not name the message: it cannot be changed later")
        posted = PostedMessage(
            target=self._settings.channel, place=place, reference=reference, notification_id=message.id
        )
        return self._record(message, posted)

    def _tell_change(self, message: Message, posted: PostedMessage, deadline_s: float) -> DeliveryResult:
        content = {
            "channel": posted.place,
            "thread_ts": posted.reference,
            "reply_broadcast": message.transition in _BROADCAST,
            **self._texts.build_change(message),
        }
        answer = self._call("chat.postMessage", content, deadline_s)
        if not answer.is_ok:
            return answer.result
        return self._record(message, replace(posted, notification_id=message.id))

    def _record(self, message: Message, posted: PostedMessage) -> DeliveryResult:
        """Record what Slack has accepted; without a database it is kept in memory until the next attempt."""
        key = (message.channel, message.incident_id)
        try:
            self._posted.record(*key, posted)
        except StorageUnavailable as error:
            if len(self._unrecorded) < _MAX_UNRECORDED:
                self._unrecorded[key] = posted
            return retry(FailureReason.UNKNOWN, f"posted, but the message could not be recorded: {error}")
        return delivered("posted")

    def _call(self, method: str, content: dict[str, Any], deadline_s: float) -> SlackAnswer:
        url = f"{self._settings.api_url.rstrip('/')}/{method}"
        return self._requests.send(url, content, {"Authorization": f"Bearer {self._settings.token}"}, deadline_s)


class SlackWebhook:
    """Posts one message per transition; an incoming webhook cannot change a message or answer in a thread."""

    concurrency = 1

    def __init__(self, settings: SlackChannelSettings, texts: SlackTexts) -> None:
        self.timeout_s = settings.timeout.total_seconds()
        self._url = settings.webhook_url
        self._texts = texts
        self._requests = SlackRequests([self._url, PostTarget.from_url(self._url).path], is_api=False)

    def send(self, message: Message) -> DeliveryResult:
        """Post a transition."""
        content = self._texts.build_incident(message)
        return self._requests.send(self._url, content, {}, time.monotonic() + self.timeout_s).result


_UNLINKED = {"unfurl_links": False, "unfurl_media": False}
"""No previews of addresses in the texts of events."""


def _address(posted: PostedMessage) -> dict[str, Any]:
    return {"channel": posted.place, "ts": posted.reference}
