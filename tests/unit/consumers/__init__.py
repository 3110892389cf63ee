"""Unit tests of the consumers package."""
