"""What drift is seen by: sums that travel in parts, measured on the yardstick of the training. Pure."""
