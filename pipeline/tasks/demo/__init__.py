"""Generated data: the demo runs from seeds, offline."""
