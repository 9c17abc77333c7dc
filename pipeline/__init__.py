"""Early-exit models: train with an exit after every layer, record every exit once, decide later."""
