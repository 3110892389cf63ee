"""The lease on the control plane of a stream, renewed while it runs."""

import time

from storage.database.leases import Leases
from storage.database.tables import CONTROL_LEASE_TTL_S

LEASE_TTL_S = float(CONTROL_LEASE_TTL_S)
"""Seconds after which another process may take a lease that was not renewed."""

_RENEW_INTERVAL_S = LEASE_TTL_S / 4


class Lease:
    """A named lease, used by one thread. It is renewed when a quarter of its duration has passed."""

    def __init__(self, leases: Leases, name: str, holder: str) -> None:
        self._leases = leases
        self._name = name
        self._holder = holder
        self._renewed_s = float("-inf")

    def renew(self) -> bool:
        """Acquire or renew the lease; return whether this process holds it."""
        now_s = time.monotonic()
        if now_s - self._renewed_s < _RENEW_INTERVAL_S:
            return True
        held = self._leases.acquire(self._name, self._holder, LEASE_TTL_S)
        self._renewed_s = now_s if held else float("-inf")
        return held

    def release(self) -> None:
        """Release the lease."""
        self._renewed_s = float("-inf")
        self._leases.release(self._name, self._holder)
