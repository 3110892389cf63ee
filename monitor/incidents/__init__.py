"""Incidents: one module for each kind of finding, the incident lifecycle, explanations and acceptance."""
