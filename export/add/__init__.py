"""Draft a new model: inspect it, try it, write its configuration."""
