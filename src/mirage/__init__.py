"""Mirage: latent spatial memory for video world models."""

__version__ = "0.1.0"
