"""Tests against independent references in float64."""
