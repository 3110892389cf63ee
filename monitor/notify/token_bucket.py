"""A token bucket: the rate at which a receiver accepts messages. The time is an argument."""

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class TokenBucket:
    """Permits `burst` messages at once and `rate_per_s` on average; for one thread at a time.

    A receiver that refuses messages for some time closes the bucket until then.
    """

    rate_per_s: float
    burst: int
    _tokens: float = 0.0
    _at_s: float | None = None
    _closed_until_s: float = float("-inf")

    def take(self, now_s: float) -> float:
        """Take a token; return 0, or the seconds until there is one, which is not taken then.

        Args:
            now_s: Time on a monotonic clock.
        """
        if now_s < self._closed_until_s:
            return self._closed_until_s - now_s
        if self._at_s is None:
            self._tokens = self.burst
        else:
            self._tokens = min(self.burst, self._tokens + (now_s - self._at_s) * self.rate_per_s)
        self._at_s = now_s
        # A wait of exactly the returned time must be long enough, in spite of rounding.
        if self._tokens >= 1 - 1e-9:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.rate_per_s

    def close(self, until_s: float) -> None:
        """Give no token before a time."""
        self._closed_until_s = max(self._closed_until_s, until_s)
