"""The daemon: the composition root of streams, rules, jobs and signals."""
