"""Which configuration of a model or pipeline sustains the most: the space, the ranking and the race. Pure."""
