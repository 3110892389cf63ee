"""Detectors, statistics, thresholds, incidents, the pipeline, the control plane, the daemon and the command line."""
