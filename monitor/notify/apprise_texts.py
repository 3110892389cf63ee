"""The Apprise channel: plain texts to one of its services. Apprise tells only whether a text was sent."""

import importlib.util
import logging
import threading
from concurrent.futures import Future
from typing import Any

from config.channels.apprise import AppriseChannelSettings
from config.errors import ConfigError
from monitor.notify.delivery import DeliveryResult, FailureReason, delivered, retry
from monitor.notify.escaping import escape_mentions
from monitor.notify.facts import MessageFacts, message_facts
from monitor.notify.links import PageLinks
from monitor.notify.templates import TemplateFailureHandler, TextTemplate, log_template_failure
from storage.control.outbox import Message

_TYPES = {"resolved": "success", "acknowledged": "info"}
_SEVERITY_TYPES = {"critical": "failure", "warning": "warning"}


class AppriseTexts:
    """A channel that sends texts by Apprise; it cannot change or resolve what it has sent."""

    concurrency = 1

    def __init__(
        self,
        settings: AppriseChannelSettings,
        links: PageLinks,
        on_template_failure: TemplateFailureHandler = log_template_failure,
    ) -> None:
        """Build the channel.

        Raises:
            ConfigError: Apprise is not installed, or it does not know the address.
        """
        if importlib.util.find_spec("apprise") is None:
            raise ConfigError("the channel type apprise needs a package: pip install 'outrider[apprise]'")
        self.timeout_s = settings.timeout.total_seconds()
        self._url = settings.url
        self._links = links
        self._text = TextTemplate(settings.template, escape_mentions, on_template_failure)
        self._service = self._load_service()

    def send(self, message: Message) -> DeliveryResult:
        """Send a message as a title and a text."""
        facts = message_facts(message, self._links)
        sent: Future[Any] = Future()

        def run() -> None:
            try:
                sent.set_result(self._notify(facts))
            except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
                sent.set_exception(error)

        # A daemon thread: the library has no time limit for the whole attempt.
        threading.Thread(target=run, name="apprise", daemon=True).start()
        try:
            has_sent = sent.result(self.timeout_s)
        except TimeoutError:
            return retry(FailureReason.TIMEOUT, f"Apprise has not answered within {self.timeout_s:g} s")
        if has_sent:
            return delivered("Apprise reports that it was sent")
        return retry(FailureReason.UNKNOWN, "Apprise reports that it was not sent, without a reason; it logs one")

    def _load_service(self) -> Any:
        import apprise  # noqa: PLC0415 - an optional package

        logging.getLogger("apprise").setLevel(logging.WARNING)
        service = apprise.Apprise()
        if not service.add(self._url):
            scheme = self._url.partition("://")[0]
            raise ConfigError(f"Apprise does not accept the address of the service {scheme}; see its documentation")
        return service

    def _notify(self, facts: MessageFacts) -> bool:
        kind = _TYPES.get(facts.transition) or _SEVERITY_TYPES.get(facts.severity, "warning")
        return bool(
            self._service.notify(
                title=escape_mentions(facts.headline),
                body=self._text.render(facts) or _build_text(facts),
                notify_type=kind,
                body_format="text",
                interpret_escapes=False,
            )
        )


def _build_text(facts: MessageFacts) -> str:
    place = f"Stream {facts.stream}, {facts.kind}, {facts.severity}, incident {facts.incident_id}, {facts.at}"
    lines = [facts.summary, place, *([] if facts.incident_url is None else [facts.incident_url])]
    return "\n".join(escape_mentions(line) for line in lines)
