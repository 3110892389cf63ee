"""Tests of the commands on stored rows, and of their pure parts."""
