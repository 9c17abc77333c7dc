"""Early-exit models: train a model with exits, record every exit once, decide later."""
