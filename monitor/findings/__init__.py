"""What makes an incident: a module for each kind, and the values that all of them share. Pure."""
