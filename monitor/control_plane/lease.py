"""The lease on the control plane of a stream, renewed while it runs."""

import time
from collections.abc import Callable

from storage.database.leases import Leases
from storage.database.tables import CONTROL_LEASE_TTL_S

LEASE_TTL_S = float(CONTROL_LEASE_TTL_S)
"""Seconds after which another process may take a lease that was not renewed."""

_RENEW_INTERVAL_S = LEASE_TTL_S / 4


class Lease:
    """A named lease, used by one thread. It is renewed when a quarter of its duration has passed.

    Args:
        leases: The leases of the database.
        name: Name of the lease.
        holder: Name of this process.
        note_answer: Called after each question for the lease that is answered, from memory or by the database.
    """

    def __init__(
        self, leases: Leases, name: str, holder: str, *, note_answer: Callable[[], None] = lambda: None
    ) -> None:
        self._leases = leases
        self._name = name
        self._holder = holder
        self._note_answer = note_answer
        self._renewed_s = float("-inf")

    def renew(self) -> bool:
        """Acquire or renew the lease; return whether this process holds it."""
        now_s = time.monotonic()
        held = now_s - self._renewed_s < _RENEW_INTERVAL_S
        if not held:
            held = self._leases.acquire(self._name, self._holder, LEASE_TTL_S)
            self._renewed_s = now_s if held else float("-inf")
        self._note_answer()
        return held

    def release(self) -> None:
        """Release the lease."""
        self._renewed_s = float("-inf")
        self._leases.release(self._name, self._holder)
