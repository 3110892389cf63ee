"""The Alertmanager channel: incidents as alerts that are sent again until they end."""
