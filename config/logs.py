"""Settings of the log."""

from typing import Literal

from pydantic import Field

from config.section import Section


class LoggingSettings(Section):
    """The log on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe messages that are logged. --debug logs all."
    )
    format: Literal["auto", "text", "json"] = Field(
        default="auto", description="text, json (an object per line), or auto: text on a terminal, json elsewhere."
    )
