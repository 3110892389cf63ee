"""Tests of monitor/percentiles/."""
