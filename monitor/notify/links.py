"""Addresses of the pages that messages link to."""

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True, kw_only=True)
class PageLinks:
    """The links to the page; all of them are None without its address.

    Attributes:
        server_url: The address of the page as people reach it (`server.url`), without a slash at its end, or None.
    """

    server_url: str | None

    def incident(self, incident_id: int) -> str | None:
        """Return the address of an incident; None for the incident 0 of a test message."""
        return None if self.server_url is None or not incident_id else f"{self.server_url}/incidents/{incident_id}"

    def stream(self, name: str) -> str | None:
        """Return the address of a stream."""
        return None if self.server_url is None else f"{self.server_url}/streams/{quote(name, safe='')}"
