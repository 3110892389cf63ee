"""The file source: JSON lines, CSV, Parquet and standard input."""
