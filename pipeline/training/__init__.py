"""Training: methods, the training loop, trials with their content keys, and the plan of trials."""
