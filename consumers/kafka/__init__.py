"""The Kafka source, the wrapper of the Kafka client, and the listing of topics."""
