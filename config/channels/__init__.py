"""Settings of the notification channels, one module for each type."""
