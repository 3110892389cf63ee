"""Scoring of Gaussian mixtures: rows to energies, identical to the bit in any batch."""
