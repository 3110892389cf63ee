"""Tests: the data plane and the control plane of a stream on real databases."""
