"""What can be set: settings, units, loading, errors."""
