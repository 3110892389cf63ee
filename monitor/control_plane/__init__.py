"""What follows from stored windows, in the order of event time: judge, tick, seal, under the stream's row."""
