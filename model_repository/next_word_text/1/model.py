"""UTF-8 text in, checked text out: the step of `next_word` in front of the response cache.

Of a long text the end is passed on, and of several spaces behind it one, so that more texts are equal in the cache.
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

PARAMETERS = {"decoder", "characters"}
FILES = ("model.onnx", "tokenizer.json")


class TritonPythonModel:
    def initialize(self, args):
        model = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in model["parameters"].items()}
        if unknown := sorted(set(given) - PARAMETERS):
            raise pb_utils.TritonModelException(f"unknown parameters key '{unknown[0]}': choose {sorted(PARAMETERS)}")
        self._decoder = Path(args["model_repository"]).parent / given["decoder"]
        self._most = int(given["characters"])

    def is_ready(self):
        """Releases of 2026 ask for this when they are asked whether the model is ready; older ones never call it."""
        return self._exported()

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _exported(self):
        return any(all((path / name).is_file() for name in FILES) for path in self._decoder.glob("[0-9]*"))

    def _answer(self, request):
        raw = pb_utils.get_input_tensor_by_name(request, "text").as_numpy()
        if not self._exported():
            words = "smollm2 was not exported: run `fathom export smollm2`"
            return _refusal(words, pb_utils.TritonError.UNAVAILABLE)
        try:
            texts = [self._checked(index, item).encode() for index, item in enumerate(raw.ravel())]
        except ValueError as error:
            return _refusal(str(error), pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse([pb_utils.Tensor("checked", np.array(texts, object).reshape(raw.shape))])

    def _checked(self, index, item):
        try:
            text = item.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"text {index} is not UTF-8: {error}") from error
        if not text.strip():
            raise ValueError(f"text {index} is empty: send at least one word")
        whole = text.rstrip(" \t")
        return whole[-self._most :] + " " * (whole != text)


def _refusal(words, kind):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(words, kind))
