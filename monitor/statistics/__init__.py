"""Mergeable statistics of a window: parts, energy sketches, the outlier count model and the sums for the drift test."""
