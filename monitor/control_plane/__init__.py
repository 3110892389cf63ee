"""The steps of a stream's control plane in order of event time: judge windows, step drift, tick, seal."""
