"""Integration tests of the daemon as a process, against Kafka and both databases."""
