"""The real servers that the tests start: Apache Kafka, PostgreSQL and an HTTP receiver."""
