"""The types of channels: the union of their settings, by the key `type`."""

from collections.abc import Mapping
from typing import Annotated, get_args

from pydantic import Field

from config.channels.alertmanager import AlertmanagerChannelSettings
from config.channels.apprise import AppriseChannelSettings
from config.channels.base import ChannelSection
from config.channels.email import EmailChannelSettings
from config.channels.kafka import KafkaChannelSettings
from config.channels.log import LogChannelSettings
from config.channels.pagerduty import PagerDutyChannelSettings
from config.channels.slack import SlackChannelSettings
from config.channels.webhook import WebhookChannelSettings

AnyChannelSettings = (
    LogChannelSettings
    | WebhookChannelSettings
    | AlertmanagerChannelSettings
    | PagerDutyChannelSettings
    | SlackChannelSettings
    | EmailChannelSettings
    | KafkaChannelSettings
    | AppriseChannelSettings
)
ChannelSettings = Annotated[AnyChannelSettings, Field(discriminator="type")]

CHANNEL_TYPES: Mapping[str, type[ChannelSection]] = {
    get_args(each.model_fields["type"].annotation)[0]: each for each in get_args(AnyChannelSettings)
}
"""The class of the settings of each type of channel."""
