"""Integration tests of the storage room, on both databases."""
