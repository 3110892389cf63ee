"""Contract tests that run over all implementations of a protocol."""
