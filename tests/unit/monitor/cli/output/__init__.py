"""Tests of the output that several commands share."""
