"""The detectors: energies of events under a fitted density."""
