"""Tests: the daemon as people run it: a process of its own, its configuration, its events, what it stored."""
