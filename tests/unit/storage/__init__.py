"""Unit tests of the storage room."""
