"""Mutated input through what reads it: nothing may end in a traceback."""
