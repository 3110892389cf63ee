"""Labelled real streams, and the methods that are compared on them."""
