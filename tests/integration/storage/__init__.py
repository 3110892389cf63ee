"""Integration tests of storage, on both databases."""
