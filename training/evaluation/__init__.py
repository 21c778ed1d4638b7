"""Is the model more trustworthy: prompts to ask, and metrics that are pure functions of the stored answers."""
