"""Fault tests: killed, frozen and replaced daemons, and unavailable servers."""
