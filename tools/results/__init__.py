"""The tables of docs/results*.md: a module per profile, with its page and its tables."""
