"""Adversarial attacks on live models."""
