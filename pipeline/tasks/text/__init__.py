"""Texts: tokens made once, mapped by every trial."""
