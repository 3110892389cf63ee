"""Bounds of thresholds. Without imports, so that commands which only read thresholds start fast."""

UNBOUNDED = (2 - 2**-23) * 2.0**127
"""Upper bound of an interval when the order statistics give none: the largest float32, at or above all energies."""
