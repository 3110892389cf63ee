"""Metrics for Prometheus and the probes of the daemon."""
