"""Sources of raw records, codecs that decode them into columns, and event-time windows."""
