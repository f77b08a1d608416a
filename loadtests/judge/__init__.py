"""From a probe's record to a measurement with its verdict."""
