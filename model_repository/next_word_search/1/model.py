"""Checked text in, the five likeliest next words out, best first, each with its probability: the work of `next_word`.

The language model is that of `smollm2`: this model opens its files. `text.py` says what a text asks for, `search.py`
how probable a word is. Where fewer than five words are found, the rest are empty and have probability 0.
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from next_words import WORDS, NextWords, newest

PARAMETERS = {"decoder", "context_tokens", "threads"}


class TritonPythonModel:
    def initialize(self, args):
        model = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in model["parameters"].items()}
        if unknown := sorted(set(given) - PARAMETERS):
            raise pb_utils.TritonModelException(f"unknown parameters key '{unknown[0]}': choose {sorted(PARAMETERS)}")
        decoder = newest(Path(args["model_repository"]).parent / given["decoder"])
        self._model = NextWords(decoder, limit=int(given["context_tokens"]), threads=int(given["threads"]))
        self._model.find([self._model.read("ready")])  # the first request is then as quick as the others

    def is_ready(self):
        """Releases of 2026 ask for this when they are asked whether the model is ready; older ones never call it."""
        return bool(self._model.encode("ready"))

    def execute(self, requests):
        texts = [pb_utils.get_input_tensor_by_name(request, "text").as_numpy().ravel() for request in requests]
        found = iter(
            self._model.find([self._model.read(text.decode(errors="replace")) for each in texts for text in each])
        )
        return [_response([next(found) for _ in each]) for each in texts]


def _response(found):
    words = np.full((len(found), WORDS), b"", object)
    probabilities = np.zeros((len(found), WORDS), np.float32)
    for row, ranked in enumerate(found):
        for place, (word, probability) in enumerate(ranked):
            words[row, place], probabilities[row, place] = word.encode(), probability
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor("words", words), pb_utils.Tensor("probabilities", probabilities)]
    )
