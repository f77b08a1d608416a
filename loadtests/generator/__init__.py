"""The process that sends requests at their scheduled times, and what starts it."""
