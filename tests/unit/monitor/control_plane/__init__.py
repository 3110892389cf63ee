"""Tests of monitor/control_plane/."""
