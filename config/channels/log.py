"""Settings of the channel `log`."""

from typing import Literal

from config.channels.base import ChannelSection


class LogChannelSettings(ChannelSection):
    """A channel that writes each notification to the log."""

    type: Literal["log"]

    @property
    def target(self) -> str:
        """Return the receiver, for lists of channels."""
        return "the log"
