"""Explanations of energies: the contribution of each feature."""
