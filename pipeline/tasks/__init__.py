"""Tasks: their definitions, the sources of their rows, and their prepared splits."""
