"""The schema of every stored result, as classes; results are written and read by them alone."""
