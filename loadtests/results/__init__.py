"""The folder that results are kept in."""
