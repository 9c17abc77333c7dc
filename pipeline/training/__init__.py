"""Training: methods, the loop, trials addressed by their content, and the plan that says which may run."""
