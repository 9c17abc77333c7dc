"""Data: sources, splits, tokens, images, and the generators of the demo."""
