"""MLflow, and the only import of it."""
