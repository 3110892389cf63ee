"""Tests of monitor/."""
