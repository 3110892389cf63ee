"""The configuration: settings, units, loading and errors."""
