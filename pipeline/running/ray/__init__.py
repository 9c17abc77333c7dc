"""Ray, and the only import of it."""
