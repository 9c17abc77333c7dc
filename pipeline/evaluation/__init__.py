"""A trace in, decisions out: criteria, sweeps, choosing, diagnosis. What replays needs NumPy and SciPy alone."""
