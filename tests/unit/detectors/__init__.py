"""Unit tests of monitor/detectors."""
