"""Tests of monitor/data_plane/."""
