"""Energies of many windows: sketches, tails, and the limit at a percentile. Pure."""
