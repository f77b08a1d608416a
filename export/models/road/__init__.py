"""A detector of road users."""
