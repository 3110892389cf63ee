"""The synthetic source: reproducible events with planted bursts and drift."""
