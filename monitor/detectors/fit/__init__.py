"""Fit of Gaussian mixtures by EM: initialisation, model selection, iterations and report."""
