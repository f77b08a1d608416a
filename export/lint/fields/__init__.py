"""Rules about the fields of one configuration."""
