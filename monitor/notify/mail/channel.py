"""The mail channel: a message as one mail to all recipients."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from email.message import EmailMessage

from config.channels.email import EmailChannelSettings
from config.units import to_us
from monitor.notify.delivery import DeliveryResult, FailureReason, delivered, refuse, retry
from monitor.notify.escaping import escape_plain
from monitor.notify.facts import MessageFacts, message_facts
from monitor.notify.links import PageLinks
from monitor.notify.mail.action_links import ActionLinks
from monitor.notify.mail.mail import MailLink, MailParts, build_group_mail, build_mail
from monitor.notify.mail.smtp import RefusedRecipient, SmtpTarget, send_mail
from monitor.notify.mail.smtp_failures import SmtpError
from monitor.notify.templates import TemplateFailureHandler, TextTemplate, log_template_failure
from storage.control.outbox import Message

log = logging.getLogger(__name__)

_MAX_PARTIAL = 200
"""Messages of which it is remembered who has got them already."""


class MailChannel:
    """Sends mails. All recipients get one mail; a repeated mail has the same id.

    A recipient that the server refuses for now (4xx) gets the mail at a later attempt, and the others do not get it
    again, as long as the process runs.
    """

    concurrency = 1
    max_group = 50

    def __init__(
        self,
        settings: EmailChannelSettings,
        links: PageLinks,
        actions: ActionLinks | None,
        read_database_id: Callable[[], str],
        on_template_failure: TemplateFailureHandler = log_template_failure,
    ) -> None:
        """Make the channel.

        Args:
            settings: The settings.
            links: The links to the page.
            actions: The links that act on an incident; None without a secret or an address of the page.
            read_database_id: Returns the id of the database.
            on_template_failure: Is called when the template fails.

        Raises:
            ConfigError: The template is not valid.
        """
        self.timeout_s = settings.timeout.total_seconds()
        self.group_wait_us = to_us(settings.group_wait)
        self._settings = settings
        self._links = links
        self._actions = actions
        self._read_database_id = read_database_id
        self._text = TextTemplate(settings.template, escape_plain, on_template_failure)
        self._target = SmtpTarget(
            host=settings.host,
            port=settings.port,
            tls=settings.tls,
            username=settings.username,
            password=settings.password,
        )
        self._reached: OrderedDict[str, set[str]] = OrderedDict()

    def send(self, message: Message) -> DeliveryResult:
        """Send the mail of a message to the recipients that have not got it yet."""
        return self._send(message, lambda: build_mail(*self._build_section(message)))

    def send_group(self, messages: Sequence[Message]) -> DeliveryResult:
        """Send one mail of several new incidents; its id is that of the first one."""
        return self._send(messages[0], lambda: build_group_mail([self._build_section(each) for each in messages]))

    def _send(self, message: Message, build: Callable[[], EmailMessage]) -> DeliveryResult:
        reached = self._reached.get(message.id, set())
        recipients = [each for each in self._settings.to if each not in reached]
        try:
            refused = send_mail(self._target, build(), self._settings.sender, recipients, self.timeout_s)
        except SmtpError as error:
            # Some have the mail already: the others are refused for good, which ends the message.
            if error.is_final and reached:
                return self._finish(message, {each: str(error) for each in recipients})
            return refuse(error.reason, str(error)) if error.is_final else retry(error.reason, str(error))
        return self._interpret(message, reached, recipients, refused)

    def _interpret(
        self, message: Message, reached: set[str], recipients: list[str], refused: Mapping[str, RefusedRecipient]
    ) -> DeliveryResult:
        waiting = {each: answer.answer for each, answer in refused.items() if answer.is_temporary}
        if not waiting:
            return self._finish(message, {each: answer.answer for each, answer in refused.items()})
        self._reached[message.id] = reached | (set(recipients) - waiting.keys())
        self._reached.move_to_end(message.id)
        if len(self._reached) > _MAX_PARTIAL:
            self._reached.popitem(last=False)
        detail = f"{self._target.place} refuses some recipients for now: {_list_answers(waiting)}"
        return retry(FailureReason.SERVER_ERROR, detail)

    def _finish(self, message: Message, refused: Mapping[str, str]) -> DeliveryResult:
        self._reached.pop(message.id, None)
        if not refused:
            return delivered(f"{self._target.place} has taken the mail")
        detail = f"{self._target.place} has taken the mail, but refuses recipients: {_list_answers(refused)}"
        log.warning(
            "Channel %s: %s; correct `to`.",
            message.channel,
            detail,
            extra={"action": "notify", "channel": message.channel, "notification": message.id},
        )
        return delivered(detail)

    def _build_section(self, message: Message) -> tuple[MessageFacts, MailParts]:
        facts = message_facts(message, self._links)
        return facts, self._build_parts(message, self._text.render(facts))

    def _build_parts(self, message: Message, own_text: str | None) -> MailParts:
        page = self._links.incident(message.incident_id)
        database_id = "test" if message.test else self._read_database_id()
        actions = [] if message.test or self._actions is None else self._actions.build(message, database_id)
        return MailParts(
            message_id=message.id,
            created_at_us=message.created_at_us,
            channel=message.channel,
            sender=self._settings.sender,
            recipients=self._settings.to,
            database_id=database_id,
            page=None if page is None else MailLink(label="The incident", url=page),
            actions=actions,
            own_text=own_text,
        )


def _list_answers(answers: Mapping[str, str]) -> str:
    return "; ".join(f"{address}: {answer}" for address, answer in answers.items())
