"""Command line `outrider`: one module per command."""
