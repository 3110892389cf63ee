"""Settings of the endpoint of metrics and probes."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

from config.section import Section

_ADDRESS = re.compile(r"^(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})$")
_MAX_PORT = 65_535


def split_address(address: str) -> tuple[str, int]:
    """Split `host:port` into its parts; an IPv6 address stands in brackets.

    Raises:
        ValueError: The text is not an address with a port.
    """
    found = _ADDRESS.match(address)
    if found is None or int(found["port"]) > _MAX_PORT:
        raise ValueError(f"{address!r} is not an address with a port, such as 127.0.0.1:9464 or [::1]:9464")
    return found["host"].strip("[]"), int(found["port"])


def _check_address(value: object) -> object:
    if isinstance(value, str):
        split_address(value)
    return value


ListenAddress = Annotated[str, BeforeValidator(_check_address)]


class MetricsSettings(Section):
    """The HTTP endpoint of the daemon with `/metrics`, `/livez` and `/readyz`, without authentication."""

    listen: ListenAddress = Field(
        default="127.0.0.1:9464", description="The address that the endpoint listens on, host:port."
    )
    partitions: bool = Field(default=False, description="Whether some metrics have a series per partition.")
