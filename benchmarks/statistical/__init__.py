"""Tables of benchmarks/statistics.py."""
