"""What writes files of the repository from its code: `python -m tools.NAME`."""
