"""The mail channel: one thread per incident, with signed links to act on it."""
