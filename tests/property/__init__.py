"""Property-based tests of codecs, windows, parts and the fold."""
