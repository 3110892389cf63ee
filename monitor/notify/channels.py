"""The channels of the configuration: the settings of each type become a channel."""

from dataclasses import dataclass

from config.channels.log import LogChannelSettings
from config.channels.registration import AnyChannelSettings
from config.channels.webhook import WebhookChannelSettings
from config.settings import Settings
from monitor.notify.channel import Channel, LogChannel
from monitor.notify.links import PageLinks
from monitor.notify.webhook import Webhook


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelContext:
    """The values that channels need beside their own settings.

    Attributes:
        links: The links to the page.
    """

    links: PageLinks

    @classmethod
    def from_settings(cls, settings: Settings) -> "ChannelContext":
        """Return the context of the configuration."""
        return cls(links=PageLinks(server_url=_server_url(settings)))


def build_channels(settings: Settings) -> dict[str, Channel]:
    """Build the configured channels, by name; `log` is always one of them.

    Raises:
        ConfigError: A channel cannot be built, for example because a package is missing.
    """
    context = ChannelContext.from_settings(settings)
    named = {name: build_channel(channel, context) for name, channel in settings.notify.channels.items()}
    return {"log": LogChannel()} | named


def build_channel(settings: AnyChannelSettings, context: ChannelContext) -> Channel:  # noqa: ARG001 - used by the next types
    """Build a channel of the type of its settings."""
    match settings:
        case LogChannelSettings():
            return LogChannel()
        case WebhookChannelSettings():
            return Webhook(settings)


def _server_url(settings: Settings) -> str | None:
    url = None if settings.server is None else settings.server.url
    return url.rstrip("/") if url else None
