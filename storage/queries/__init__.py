"""Read-only queries for the command line, `History` and the back-test."""
