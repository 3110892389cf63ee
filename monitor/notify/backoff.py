"""The delay before the next attempt to deliver a message, as pure functions."""

import hashlib

_FIRST_BACKOFF_US = 2_000_000
_MAX_BACKOFF_US = 600_000_000


def backoff_us(message_id: str, attempt: int) -> int:
    """Return the delay after a failed attempt: exponential backoff from 2 s to 10 min, half of it jitter.

    The jitter spreads messages that failed together. It is derived from the id and the attempt, so that it is
    reproducible and the same in every daemon.

    Args:
        message_id: The message.
        attempt: The number of the failed attempt; the first is 1.
    """
    full_us = min(_MAX_BACKOFF_US, _FIRST_BACKOFF_US << min(attempt - 1, 30))
    digest = hashlib.sha256(f"{message_id}:{attempt}".encode()).digest()
    return full_us // 2 + full_us // 2 * int.from_bytes(digest[:4], "big") // 2**32


def next_attempt_us(
    message_id: str, attempt: int, *, now_us: int, created_at_us: int, deadline_us: int, wait_us: int | None = None
) -> int | None:
    """Return the time of the next attempt, or None to give up.

    The last attempt is at the deadline, also if the receiver requests a longer delay. A message that is past its
    deadline at its first attempt, because no daemon was running, is tried once.

    Args:
        message_id: The message.
        attempt: The number of the failed attempt; the first is 1.
        now_us: The time, by the database's clock.
        created_at_us: The time at which the message was stored, by the same clock.
        deadline_us: The time after `created_at_us` at which the message is given up.
        wait_us: The delay that the receiver requests.
    """
    last_us = created_at_us + deadline_us
    if now_us >= last_us:
        return None
    return min(last_us, now_us + max(backoff_us(message_id, attempt), wait_us or 0))
