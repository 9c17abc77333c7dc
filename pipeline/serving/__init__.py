"""A model that left the house answers requests: what is asked and said, the pool of rows, HTTP."""
