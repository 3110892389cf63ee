"""The daemon as a process for tests: its configuration, its events and its stored rows."""
