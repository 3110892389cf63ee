"""Models that score beside the active one, and the gate before they take over."""
