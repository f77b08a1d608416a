"""UTF-8 text in, checked text out: the step of `next_word` in front of the response cache.

Of a long text the end is passed on, and of several spaces behind it one, so that more texts are equal in the cache.
"""

import json

import numpy as np
import triton_python_backend_utils as pb_utils

PARAMETERS = {"characters"}


class TritonPythonModel:
    def initialize(self, args):
        model = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in model["parameters"].items()}
        if unknown := sorted(set(given) - PARAMETERS):
            raise pb_utils.TritonModelException(f"unknown parameters key '{unknown[0]}': choose {sorted(PARAMETERS)}")
        self._most = int(given["characters"])

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        raw = pb_utils.get_input_tensor_by_name(request, "text").as_numpy()
        try:
            texts = [self._checked(index, item).encode() for index, item in enumerate(raw.ravel())]
        except ValueError as error:
            refusal = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=refusal)
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
