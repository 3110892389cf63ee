"""Settings of the channel `alertmanager`."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from config.channels.base import ChannelSection
from config.channels.http import RequestTimeout, header_problems, url_problems
from config.masking import mask_url
from config.section import Names, raise_problems
from config.units import PositiveDuration

_LABEL_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_OWN_LABELS = frozenset({"alertname", "stream", "kind", "severity", "incident"})
_MIN_INTERVAL = timedelta(seconds=1)


class AlertmanagerChannelSettings(ChannelSection):
    """A channel that keeps incidents as alerts in Alertmanager (API v2)."""

    secret_mappings: ClassVar = ("headers",)

    type: Literal["alertmanager"]
    urls: Names = Field(
        repr=False,
        description="The addresses of all Alertmanagers of the cluster, such as [http://am-1:9093, http://am-2:9093]; "
        "not that of a load balancer.",
    )
    headers: dict[str, str] = Field(
        default={}, repr=False, description="Additional headers. NAME_file: PATH reads the value of NAME from a file."
    )
    labels: dict[str, str] = Field(default={}, description="Additional labels of all alerts, such as {team: payments}.")
    interval: PositiveDuration = Field(
        default=timedelta(seconds=60),
        description="The interval at which open incidents are sent again. An alert ends after four intervals without.",
    )
    timeout: RequestTimeout = Field(default=timedelta(seconds=10), description="Timeout of one whole request.")
    template: str = Field(default="", description="Jinja2 template of the annotation `summary`. Empty: the default.")

    @model_validator(mode="after")
    def _check_channel(self) -> "AlertmanagerChannelSettings":
        raise_problems(self._problems())
        return self

    def _problems(self) -> Iterator[tuple[str, str]]:
        for url in self.urls:
            yield from url_problems(url, "urls", "has an empty address")
        yield from header_problems(self.headers)
        for name, value in self.labels.items():
            if not _LABEL_NAME.fullmatch(name):
                yield "labels", f"{name!r} is not a label name; use letters, digits and _"
            elif name in _OWN_LABELS:
                yield f"labels.{name}", "is set by Outrider itself; leave it out"
            elif not value:
                yield f"labels.{name}", "must not be empty: Alertmanager has no empty labels"
        if self.interval < _MIN_INTERVAL:
            yield "interval", "must be at least 1s"

    @property
    def target(self) -> str:
        """Return the addresses of the Alertmanagers."""
        return ", ".join(map(mask_url, self.urls))

    def masked(self) -> dict[str, Any]:
        """Return the settings in the form of the file, with the credentials of addresses and headers masked."""
        return super().masked() | {"urls": [mask_url(url) for url in self.urls]}
