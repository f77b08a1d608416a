"""Which rate is probed next, which rates are certified, and the estimate of the capacity."""
