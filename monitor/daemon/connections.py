"""The connections of a daemon to PostgreSQL: their number does not depend on the number of streams."""

COMMIT_CONNECTIONS = 8
"""Connections of all worker and polling threads together."""

CONTROL_CONNECTIONS = 4
"""Connections of all control threads, jobs and notifications together."""

DAEMON_CONNECTIONS = COMMIT_CONNECTIONS + CONTROL_CONNECTIONS


def describe_connections(allowed: int, used: int) -> list[str]:
    """Return the need for connections as lines of text.

    Args:
        allowed: The connections that the server allows to users without special rights.
        used: The connections that are open now, of all programs.
    """
    lines = [
        f"connections: each daemon opens at most {DAEMON_CONNECTIONS} ({COMMIT_CONNECTIONS} for commits, "
        f"{CONTROL_CONNECTIONS} for control), whatever the number of streams; a command opens one",
        f"  the server allows {allowed:,}, of which {used:,} are open now",
    ]
    if allowed - used < DAEMON_CONNECTIONS:
        lines.append(
            f"  warning: fewer than {DAEMON_CONNECTIONS} are free, unless a daemon runs already; raise max_connections"
        )
    return lines
