"""Tests of monitor/drifts/."""
