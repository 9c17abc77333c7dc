"""A trace in, decisions out: criteria, sweeps, choosing, diagnosis. Replay needs NumPy and SciPy only."""
