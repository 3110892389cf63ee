"""Tests of monitor/shadow/."""
