"""Tests: the daemon as a whole, from records in a real broker to rows in a real database."""
