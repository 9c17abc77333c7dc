"""Transformer encoders, taken apart into embed, layer and pool."""
