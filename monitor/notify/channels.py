"""The channels of the configuration: the settings of each type become a channel."""

from collections.abc import Callable
from dataclasses import dataclass

from config.channels.alertmanager import AlertmanagerChannelSettings
from config.channels.apprise import AppriseChannelSettings
from config.channels.email import EmailChannelSettings
from config.channels.kafka import KafkaChannelSettings
from config.channels.log import LogChannelSettings
from config.channels.pagerduty import PagerDutyChannelSettings
from config.channels.registration import AnyChannelSettings
from config.channels.slack import SlackChannelSettings
from config.channels.webhook import WebhookChannelSettings
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
    """

    links: PageLinks
    actions: ActionLinks | None
    posted: PostedMessages
    read_database_id: Callable[[], str]
    kafka: KafkaSettings
    db: Database | None

    @classmethod
    def from_settings(cls, settings: Settings, db: Database | None) -> "ChannelContext":
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
        )


def build_channels(settings: Settings, db: Database | None) -> dict[str, Channel]:
    """Build the configured channels, by name; `log` is always one of them.

    Args:
        settings: All settings.
        db: The database of the incidents; None for test messages, which belong to no incident.

    Raises:
        ConfigError: A channel cannot be built, for example because a package is missing.
    """
    context = ChannelContext.from_settings(settings, db)
    named = {name: build_channel(name, channel, context) for name, channel in settings.notify.channels.items()}
    return {"log": LogChannel()} | named


def build_channel(name: str, settings: AnyChannelSettings, context: ChannelContext) -> Channel:
    """Build a channel of the type of its settings."""
    channel: Channel
    match settings:
        case LogChannelSettings():
            channel = LogChannel()
        case WebhookChannelSettings():
            channel = Webhook(settings)
        case AlertmanagerChannelSettings():
            states = None if context.db is None else StoredAlertStates(context.db, name)
            channel = Alertmanager(settings, context.links, states)
        case PagerDutyChannelSettings():
            channel = PagerDuty(settings, context.links, context.read_database_id)
        case KafkaChannelSettings():
            channel = KafkaTopic(settings, context.kafka, context.read_database_id)
        case AppriseChannelSettings():
            channel = AppriseTexts(settings, context.links)
        case SlackChannelSettings():
            channel = build_slack(settings, context.links, context.posted)
        case EmailChannelSettings():
            channel = MailChannel(settings, context.links, context.actions, context.read_database_id)
    return channel


def _server_url(settings: Settings) -> str | None:
    url = None if settings.server is None else settings.server.url
    return url.rstrip("/") if url else None
