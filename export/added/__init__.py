"""The recipe of an added model."""
