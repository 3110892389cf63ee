"""Tests: the real servers that the tests start: Apache Kafka and PostgreSQL."""
