"""UTF-8 text in, token ids out: the `text_tokenizer` step of `text_embedding`.

`tokenizer.json`, which export publishes beside this file, carries the truncation length. Texts of one request are
padded to the longest, rounded up to a multiple, so that minilm finds requests of equal length to batch.
"""

import json
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

PARAMETERS = {"tokenizer", "pad_to_multiple_of"}
CHARACTERS_A_TOKEN = 32
"""Longer texts are cut to so many before they are tokenized, which takes seconds for a megabyte."""


class TritonPythonModel:
    def initialize(self, args):
        model = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in model["parameters"].items()}
        if unknown := sorted(set(given) - PARAMETERS):
            raise pb_utils.TritonModelException(f"unknown parameters key '{unknown[0]}': choose {sorted(PARAMETERS)}")
        path = Path(args["model_repository"]) / args["model_version"] / given["tokenizer"]
        if not path.is_file():
            raise pb_utils.TritonModelException(f"'{path.name}' is missing: run `fathom export minilm`")
        self.tokenizer = Tokenizer.from_file(str(path))
        limit = (self.tokenizer.truncation or {}).get("max_length")
        self.pad_to_multiple_of = int(given["pad_to_multiple_of"])
        if limit and limit % self.pad_to_multiple_of:
            raise pb_utils.TritonModelException(
                f"pad_to_multiple_of is {self.pad_to_multiple_of}, which does not divide the model's {limit} tokens"
            )
        self.most_characters = limit * CHARACTERS_A_TOKEN if limit else sys.maxsize
        self.tokenizer.no_padding()

    def is_ready(self):
        """Releases of 2026 ask for this when they are asked whether the model is ready; older ones never call it."""
        return bool(self.tokenizer.encode("ready").ids)

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        raw = pb_utils.get_input_tensor_by_name(request, "text").as_numpy().ravel()
        try:
            texts = [self.read(index, item) for index, item in enumerate(raw)]
        except ValueError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))
        encodings = self.tokenizer.encode_batch(texts)
        longest = max(len(e.ids) for e in encodings)
        length = -(-longest // self.pad_to_multiple_of) * self.pad_to_multiple_of
        input_ids = np.zeros((len(texts), length), dtype=np.int64)
        attention_mask = np.zeros((len(texts), length), dtype=np.int64)
        for row, encoding in enumerate(encodings):
            input_ids[row, : len(encoding.ids)] = encoding.ids
            attention_mask[row, : len(encoding.ids)] = 1
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("input_ids", input_ids), pb_utils.Tensor("attention_mask", attention_mask)]
        )

    def read(self, index, item):
        """The text, without what is certainly cut off by the tokenizer. Raises ValueError with a sentence."""
        try:
            text = item.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"text {index} is not UTF-8: {error}") from error
        if not text.strip():
            raise ValueError(f"text {index} is empty: send at least one word")
        return text if len(text) <= self.most_characters else text.lstrip()[: self.most_characters]
