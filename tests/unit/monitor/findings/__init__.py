"""Tests of monitor/findings/."""
