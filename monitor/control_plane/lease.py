"""The right to run the control plane of a stream, renewed as work goes on."""

import time

from storage.database.leases import Leases

LEASE_TTL_S = 10.0
_RENEW_INTERVAL_S = LEASE_TTL_S / 4


class Lease:
    """One named lease as one thread holds it; asks the database only when a quarter of it has passed."""

    def __init__(self, leases: Leases, name: str, holder: str) -> None:
        self._leases = leases
        self._name = name
        self._holder = holder
        self._renewed_s = float("-inf")

    def renew(self) -> bool:
        """Take or keep the lease; return whether it is ours."""
        now_s = time.monotonic()
        if now_s - self._renewed_s < _RENEW_INTERVAL_S:
            return True
        held = self._leases.acquire(self._name, self._holder, LEASE_TTL_S)
        self._renewed_s = now_s if held else float("-inf")
        return held

    def release(self) -> None:
        """Give it up."""
        self._renewed_s = float("-inf")
        self._leases.release(self._name, self._holder)
