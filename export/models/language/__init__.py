"""A small language model, and what is asked of it."""
