"""Where the project lies."""

from pipeline.identity.imports import ROOT

__all__ = ["ROOT"]
