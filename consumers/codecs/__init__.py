"""Codecs that decode JSON, MessagePack, float32 and tabular records into events and dead letters."""
