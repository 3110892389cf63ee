"""Tokens: comparison in constant time, and the keys that are derived from them."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence

from config.server import TokenSettings

_SESSION_KEY = b"outrider session key 1"
_FORM_KEY = b"outrider form key 1"


class TokenList:
    """The tokens of the server.

    Args:
        tokens: The tokens with their names and scopes.
    """

    def __init__(self, tokens: Sequence[TokenSettings]) -> None:
        self._tokens = tuple(tokens)
        # Keys from the tokens: a session survives a restart and ends when its token changes.
        self._session_keys = {each.name: _derive_key(each.token.encode(), _SESSION_KEY) for each in tokens}
        joined = b"\0".join(sorted(each.token.encode() for each in tokens))
        self.form_key = _derive_key(joined or secrets.token_bytes(32), _FORM_KEY)
        """Key of the tokens in forms; without tokens it is new at each start."""

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def find(self, presented: str) -> TokenSettings | None:
        """Return the token with this text. The duration does not depend on the characters that agree."""
        found = None
        digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
        for each in self._tokens:
            if hmac.compare_digest(digest, hashlib.sha256(each.token.encode()).digest()):
                found = each
        return found

    def find_name(self, name: str) -> TokenSettings | None:
        """Return the token with this name."""
        return next((each for each in self._tokens if each.name == name), None)

    def session_key(self, name: str) -> bytes | None:
        """Return the key that signs the sessions of a token; None for an unknown name."""
        return self._session_keys.get(name)


def _derive_key(secret: bytes, purpose: bytes) -> bytes:
    return hmac.digest(secret, purpose, "sha256")
