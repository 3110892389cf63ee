"""Replay of a fixed file through the daemon, and a canonical dump of every SQL view."""
