"""The tables of benchmarks/statistics.py."""
