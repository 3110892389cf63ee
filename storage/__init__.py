"""Storage of scores, windows, thresholds, models and incidents in SQLite or PostgreSQL."""
