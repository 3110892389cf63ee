"""Tests of the command line's pure parts, and of its commands on stored rows."""
