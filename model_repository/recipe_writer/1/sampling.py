"""Logits in, the next token out: the likeliest, or one drawn with the request's own temperature, top_p and seed."""

import numpy as np


class Sampler:
    """The choice of one request's tokens. The same seed draws the same numbers, whoever else is being served.

    `temperature` 0 takes the likeliest token. `top_p` keeps the likeliest tokens whose probabilities add up to it.
    """

    def __init__(self, temperature=0.0, top_p=1.0, seed=None):
        self._temperature, self._top_p = temperature, top_p
        self._random = np.random.default_rng(seed)

    def __call__(self, logits):
        """The token, of FP32 logits [vocabulary]. Raises ValueError where one of them is not a number."""
        best = int(logits.argmax())
        if np.isnan(logits[best]):  # argmax finds a NaN before any number
            raise ValueError("the model computed logits that are not numbers")
        if not self._temperature:
            return best
        with np.errstate(over="ignore", under="ignore"):
            weights = np.exp((logits - logits[best]) / self._temperature)
        tokens = None
        if self._top_p < 1:
            # Tokens below this probability add up to 1 - top_p at most, so that none of them is needed.
            total = weights.sum(dtype=np.float64)
            tokens = np.flatnonzero(weights >= total * (1 - self._top_p) / len(weights))
            tokens = tokens[np.argsort(-weights[tokens], kind="stable")]
            weights = weights[tokens]
        sums = np.cumsum(weights, dtype=np.float64)
        if tokens is not None:
            sums = sums[: 1 + np.searchsorted(sums, self._top_p * total)]
        drawn = min(int(np.searchsorted(sums, self._random.random() * sums[-1], side="right")), len(sums) - 1)
        return drawn if tokens is None else int(tokens[drawn])
