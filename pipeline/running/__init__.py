"""How stages run: settings, locks, Ray, MLflow."""
