"""The channels of the configuration: the settings of each type become a channel."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from config.channels.alertmanager import AlertmanagerChannelSettings
from config.channels.apprise import AppriseChannelSettings
from config.channels.email import EmailChannelSettings
from config.channels.kafka import KafkaChannelSettings
from config.channels.log import LogChannelSettings
from config.channels.pagerduty import PagerDutyChannelSettings
from config.channels.registration import AnyChannelSettings
from config.channels.slack import SlackChannelSettings
from config.channels.webhook import WebhookChannelSettings
from config.errors import ConfigError
from config.kafka import KafkaSettings
from config.settings import Settings
from monitor.notify.alertmanager.channel import Alertmanager, StoredAlertStates
from monitor.notify.apprise_texts import AppriseTexts
from monitor.notify.channel import Channel, LogChannel
from monitor.notify.kafka_topic import KafkaTopic
from monitor.notify.links import PageLinks
from monitor.notify.mail.action_links import ActionLinks
from monitor.notify.mail.channel import MailChannel
from monitor.notify.pagerduty import PagerDuty
from monitor.notify.slack.channel import build_slack
from monitor.notify.slack.posted import PostedInMemory, PostedMessages
from monitor.notify.webhook import Webhook
from storage.control.database_id import DatabaseId
from storage.control.posted_messages import PostedMessageStore
from storage.database.engine import Database

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelContext:
    """The values that channels need beside their own settings.

    Attributes:
        links: The links to the page.
        actions: The links that act on an incident; None without `server.url` or the secret that signs them.
        posted: The record of the messages of incidents in chats.
        read_database_id: Returns the id of the database.
        kafka: The cluster of the streams.
        db: The database of the incidents; None for test messages.
        on_template_failure: Is called with the channel and the cause when a template fails.
    """

    links: PageLinks
    actions: ActionLinks | None
    posted: PostedMessages
    read_database_id: Callable[[], str]
    kafka: KafkaSettings
    db: Database | None
    on_template_failure: Callable[[str, str], None]

    @classmethod
    def from_settings(
        cls, settings: Settings, db: Database | None, on_template_failure: Callable[[str, str], None]
    ) -> "ChannelContext":
        """Return the context of the configuration; without a database for test messages, which are not stored."""
        url = _server_url(settings)
        secrets = () if settings.server is None else settings.server.link_secrets
        return cls(
            links=PageLinks(server_url=url),
            actions=ActionLinks(server_url=url, secret=secrets[0]) if url and secrets else None,
            posted=PostedInMemory() if db is None else PostedMessageStore(db),
            read_database_id=(lambda: "test") if db is None else DatabaseId(db).read,
            kafka=settings.kafka,
            db=db,
            on_template_failure=on_template_failure,
        )


def log_template_failure(channel: str, cause: str) -> None:
    """Log that the template of a channel has failed."""
    log.warning(
        "The template of the channel %s has failed (%s); the built-in text is sent.",
        channel,
        cause,
        extra={"action": "notify", "channel": channel},
    )


def build_channels(
    settings: Settings,
    db: Database | None,
    on_template_failure: Callable[[str, str], None] = log_template_failure,
) -> dict[str, Channel]:
    """Build the configured channels, by name; `log` is always one of them.

    Args:
        settings: All settings.
        db: The database of the incidents; None for test messages, which belong to no incident.
        on_template_failure: Is called with the channel and the cause when a template fails.

    Raises:
        ConfigError: A channel cannot be built, for example because a package is missing.
    """
    context = ChannelContext.from_settings(settings, db, on_template_failure)
    channels: dict[str, Channel] = {"log": LogChannel()}
    for name, channel in settings.notify.channels.items():
        try:
            channels[name] = build_channel(name, channel, context)
        except ConfigError as error:
            raise ConfigError(*(f"notify.channels.{name}: {problem}" for problem in error.problems)) from error
    return channels


def build_channel(name: str, settings: AnyChannelSettings, context: ChannelContext) -> Channel:
    """Build a channel of the type of its settings."""
    channel: Channel
    template_failed = partial(context.on_template_failure, name)
    match settings:
        case LogChannelSettings():
            channel = LogChannel()
        case WebhookChannelSettings():
            channel = Webhook(settings)
        case AlertmanagerChannelSettings():
            states = None if context.db is None else StoredAlertStates(context.db, name)
            channel = Alertmanager(settings, context.links, states, template_failed)
        case PagerDutyChannelSettings():
            channel = PagerDuty(settings, context.links, context.read_database_id, template_failed)
        case KafkaChannelSettings():
            channel = KafkaTopic(settings, context.kafka, context.read_database_id)
        case AppriseChannelSettings():
            channel = AppriseTexts(settings, context.links, template_failed)
        case SlackChannelSettings():
            channel = build_slack(settings, context.links, context.posted, template_failed)
        case EmailChannelSettings():
            channel = MailChannel(settings, context.links, context.actions, context.read_database_id, template_failed)
    return channel


def _server_url(settings: Settings) -> str | None:
    url = None if settings.server is None else settings.server.url
    return url.rstrip("/") if url else None
