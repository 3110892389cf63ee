"""What it means: detectors, scoring, statistics, incidents, the daemon."""
