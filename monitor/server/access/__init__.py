"""Access: hosts, persons, scopes, sessions and headers."""
