"""Signed links to act on an incident from a mail, without a login. Pure.

A link is a claim: a verb on an incident, on behalf of a channel, until a time. Its token is the claim and an
HMAC-SHA256 under the secret of the server. A token acts once: `storage.control.used_links` records its id in the
transaction of the verb.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from config.time_format import DAY_US

LinkVerb = Literal["acknowledge", "false_alarm"]

LINK_LIFETIME_US = 7 * DAY_US

_DOMAIN = b"outrider link 1\0"
"""The first bytes that are signed, so that the secret cannot be made to sign anything else as a link."""

_MAX_TOKEN_CHARACTERS = 1_000


class LinkRefused(Exception):  # noqa: N818 - names the state
    """The token of a link is not valid; `reason` is `forged` or `expired`."""

    def __init__(self, reason: Literal["forged", "expired"]) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkClaim:
    """The permission of a link: one verb on one incident, on behalf of a channel, before a time.

    Attributes:
        database_id: Id of the database of the incident: ids of incidents repeat in other databases.
        incident_id: The incident.
        verb: The verb.
        channel: The channel whose message has the link.
        expires_at_us: Time on the database's clock.
    """

    database_id: str
    incident_id: int
    verb: LinkVerb
    channel: str
    expires_at_us: int

    @property
    def who(self) -> str:
        """Return the name under which the verb is recorded."""
        return f"mail:{self.channel}"

    @property
    def id(self) -> str:
        """Return the id under which the use of the link is recorded; the same under another secret."""
        return hashlib.sha256(_encode_claim(self)).hexdigest()


def sign_link(claim: LinkClaim, secret: str) -> str:
    """Return the token of a claim: two parts of base64url, separated by a dot."""
    payload = _encode_claim(claim)
    return f"{_to_base64(payload)}.{_to_base64(_compute_mac(payload, secret))}"


def read_link(token: str, secrets: Sequence[str], *, now_us: int) -> LinkClaim:
    """Return the claim of a token.

    Args:
        token: The token of the address.
        secrets: The secrets that may have signed it; two while the secret is replaced.
        now_us: Time on the database's clock.

    Raises:
        LinkRefused: No secret has signed the token, or it has expired.
    """
    payload = _decode_payload(token)
    # The whole text is compared: base64 has several texts for the same bytes.
    signed = [f"{_to_base64(payload)}.{_to_base64(_compute_mac(payload, secret))}" for secret in secrets]
    if not any(hmac.compare_digest(each.encode(), token.encode()) for each in signed):
        raise LinkRefused("forged")
    claim = _decode_claim(payload)
    if now_us >= claim.expires_at_us:
        raise LinkRefused("expired")
    return claim


def _decode_payload(token: str) -> bytes:
    if len(token) > _MAX_TOKEN_CHARACTERS or not token.isascii():
        raise LinkRefused("forged")
    text = token.partition(".")[0]
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise LinkRefused("forged") from None


def _encode_claim(claim: LinkClaim) -> bytes:
    values = [claim.database_id, claim.incident_id, claim.verb, claim.channel, claim.expires_at_us]
    return json.dumps(values, separators=(",", ":")).encode()


def _decode_claim(payload: bytes) -> LinkClaim:
    """Return the claim of a payload whose signature is valid; another version may have signed another form."""
    try:
        database_id, incident_id, verb, channel, expires_at_us = json.loads(payload)
    except ValueError:
        raise LinkRefused("forged") from None
    if verb not in get_args(LinkVerb):
        raise LinkRefused("forged")
    return LinkClaim(
        database_id=database_id, incident_id=incident_id, verb=verb, channel=channel, expires_at_us=expires_at_us
    )


def _compute_mac(payload: bytes, secret: str) -> bytes:
    return hmac.digest(secret.encode(), _DOMAIN + payload, "sha256")


def _to_base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
