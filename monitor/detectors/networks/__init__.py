"""Autoencoders with a Gaussian mixture over their latent: VAEGMM and AEGMM."""
