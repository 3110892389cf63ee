"""Transactions and reads of the control plane: windows, thresholds, drift, incidents, models and notifications."""
