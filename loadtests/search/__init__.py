"""Which rate is probed next, which rates are proven, and the estimate of the capacity."""
