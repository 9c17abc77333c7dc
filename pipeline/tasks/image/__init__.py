"""Images: pixels decoded once, mapped by every trial."""
