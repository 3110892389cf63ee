"""Thresholds of energies: percentile and tail estimates, the guard against outliers, the look-back and the tick."""
