"""The pipeline and the control plane on real databases."""
