"""The folder of results."""
