"""The processes that run on a database of an earlier schema, so that a rolling upgrade waits for their end."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

_RECENT_US = 15_000_000
"""Processes with a heartbeat or a commit within this time run."""

_FOREVER_US = 2**63 - 1


def find_running_replicas(connection: Connection, now_us: int) -> list[str]:
    """Return the processes that run streams on a database of any schema, sorted.

    Processes write heartbeats from schema 0004 on. Those of earlier versions are seen by the leases that they hold, and
    by partitions that they have committed recently or mark as idle. One that has only partitions without events for
    less than the idle time-out is not seen; its next commit is stored under the new schema.
    """
    if sa.inspect(connection).has_table("replicas"):
        found = connection.execute(
            sa.text("SELECT owner FROM replicas WHERE heartbeat_us BETWEEN :since AND :now"),
            {"since": now_us - _RECENT_US, "now": now_us + _RECENT_US},
        )
    else:
        found = connection.execute(
            sa.text(
                "SELECT holder FROM leases WHERE expires_at_us > :now UNION "
                "SELECT owner FROM positions WHERE owner IS NOT NULL AND active AND "
                "(committed_at_us > :since OR idle_until_us > :now AND idle_until_us < :forever)"
            ),
            {"since": now_us - _RECENT_US, "now": now_us, "forever": _FOREVER_US},
        )
    return sorted(found.scalars())
