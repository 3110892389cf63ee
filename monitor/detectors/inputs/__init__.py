"""Validation and conversion of events and arguments."""
