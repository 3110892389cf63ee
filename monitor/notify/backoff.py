"""When a message that was not delivered is tried again. Pure."""

import hashlib

_FIRST_BACKOFF_US = 2_000_000
_MAX_BACKOFF_US = 600_000_000


def backoff_us(message_id: str, attempt: int) -> int:
    """Return how long to wait after a failed attempt, the first being 1: twice as long each time, up to ten minutes.

    Half of it is jitter, so that messages which failed together do not come back together. It is drawn from the id
    and the attempt: two daemons agree, and a test can tell.
    """
    full_us = min(_MAX_BACKOFF_US, _FIRST_BACKOFF_US << min(attempt - 1, 30))
    drawn = hashlib.sha256(f"{message_id}:{attempt}".encode()).digest()
    return full_us // 2 + full_us // 2 * int.from_bytes(drawn[:4], "big") // 2**32


def next_attempt_us(
    message_id: str, attempt: int, *, now_us: int, created_at_us: int, deadline_us: int, wait_us: int | None = None
) -> int | None:
    """Return when to try again, or None to give up.

    The last attempt is at the deadline, however long the receiver asked us to wait. A message that is older, since
    no daemon ran meanwhile, has had its one attempt.

    Args:
        message_id: The message.
        attempt: The number of the attempt that failed, the first being 1.
        now_us: The database's clock.
        created_at_us: When the message was stored, by the same clock.
        deadline_us: How long after that it is given up.
        wait_us: What the receiver asked for.
    """
    last_us = created_at_us + deadline_us
    if now_us >= last_us:
        return None
    return min(last_us, now_us + max(backoff_us(message_id, attempt), wait_us or 0))
