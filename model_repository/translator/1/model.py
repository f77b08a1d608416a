"""Texts in, translations out: the encoder once for each group of texts, then the decoder for each token of the longest.

Triton hands over the requests that wait together. Their texts are sorted into groups of about equal length, so that
little of what the graphs compute is padding, and each group is searched as one batch. What is wrong with one request is
answered to that one alone.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from search import Search
from texts import Texts

PARAMETERS = {"encoder", "decoder", "decoder_rows", "bucket_tokens", "most_beams"}


@dataclass
class Row:
    """One text of one request, and its search; `refusal` is the answer where it cannot be finished."""

    request: object
    tokens: list
    search: Search
    refusal: object = None

    def goes_on(self):
        """Whether it is still searched; that of a cancelled request is not."""
        if not self.refusal and self.request.is_cancelled():
            self.refusal = _refusal("the request was cancelled", pb_utils.TritonError.CANCELLED)
        return not self.refusal and not self.search.done


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in config["parameters"].items()}
        if unknown := sorted(set(given) - PARAMETERS):
            raise pb_utils.TritonModelException(f"unknown parameters key '{unknown[0]}': choose {sorted(PARAMETERS)}")
        self._texts = Texts(Path(args["model_repository"]) / args["model_version"])
        self._encoder, self._decoder = given["encoder"], given["decoder"]
        self._bucket, self._most_rows = int(given["bucket_tokens"]), int(given["decoder_rows"])
        self._most_beams = int(given["most_beams"])

    def execute(self, requests):
        answers, rows = {}, {}
        for index, request in enumerate(requests):
            try:
                rows[index] = self._read(request)
            except ValueError as error:
                answers[index] = _refusal(str(error), pb_utils.TritonError.INVALID_ARG)
        for group in self._groups([row for each in rows.values() for row in each]):
            try:
                self._translate(group)
            except pb_utils.TritonModelException as error:
                for row in group:
                    if not row.search.done:
                        row.refusal = _refusal(str(error), pb_utils.TritonError.UNAVAILABLE)
        return [answers[index] if index in answers else self._answer(rows[index]) for index in range(len(requests))]

    def _read(self, request):
        """The rows of a request. Raises ValueError."""
        texts, languages = (_strings(request, name) for name in ("text", "language"))
        beams = pb_utils.get_input_tensor_by_name(request, "beams")
        beams = [1] * len(texts) if beams is None else beams.as_numpy().ravel().tolist()
        rows = []
        for index, (text, language, width) in enumerate(zip(texts, languages, beams, strict=True)):
            where = f"row {index}: " if len(texts) > 1 else ""
            if not 1 <= width <= self._most_beams:
                raise ValueError(f"{where}beams is {width}, and must be 1 (greedy) to {self._most_beams}")
            try:
                tokens = self._texts.encode(text, language)
            except ValueError as error:
                raise ValueError(f"{where}{error}") from None
            settings = self._texts.settings
            search = Search(
                beams=width,
                start=settings["start"],
                end=settings["end"],
                longest=settings["context"],
                length_penalty=settings["length_penalty"],
            )
            rows.append(Row(request, tokens, search))
        return rows

    def _groups(self, rows):
        """Rows whose lengths lie in one bucket, with no more beams together than the decoder takes."""
        buckets = {}
        for row in sorted(rows, key=lambda row: len(row.tokens)):
            buckets.setdefault(-(-len(row.tokens) // self._bucket), []).append(row)
        for bucket in buckets.values():
            group, beams = [], 0
            for row in bucket:
                if group and beams + row.search.beams > self._most_rows:
                    yield group
                    group, beams = [], 0
                group.append(row)
                beams += row.search.beams
            yield group

    def _translate(self, group):
        """Search all rows of the group to their ends. Raises TritonModelException where a graph does not answer."""
        width = -(-max(len(row.tokens) for row in group) // self._bucket) * self._bucket
        width = min(width, self._texts.settings["context"])
        ids = np.full((len(group), width), self._texts.settings["padding"], np.int64)
        mask = np.zeros((len(group), width), np.int64)
        for place, row in enumerate(group):
            ids[place, : len(row.tokens)], mask[place, : len(row.tokens)] = row.tokens, 1
        (states,) = _ask(self._encoder, {"input_ids": ids, "attention_mask": mask}, ["states"])
        states = states.reshape(len(group), width, -1)
        while searched := [place for place, row in enumerate(group) if row.goes_on()]:
            written = [text for place in searched for text in group[place].search.written]
            owners = [place for place in searched for _ in group[place].search.written]
            inputs = {
                "decoder_input_ids": np.array(written, np.int64),
                "states": states[owners],
                "attention_mask": mask[owners],
            }
            found, log_probabilities = _ask(self._decoder, inputs, ["ids", "log_probabilities"])
            begin = 0
            for place in searched:
                stop = begin + len(group[place].search.written)
                group[place].search.advance(found[begin:stop], log_probabilities[begin:stop])
                begin = stop

    def _answer(self, rows):
        for row in rows:
            if row.refusal:
                return row.refusal
        best = [row.search.best() for row in rows]
        translations = [[self._texts.decode(tokens).encode()] for tokens, _ in best]
        scores = [[score] for _, score in best]
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("translation", np.array(translations, object)),
                pb_utils.Tensor("score", np.array(scores, np.float32)),
            ]
        )


def _ask(model, inputs, outputs):
    """The outputs of another model of this server. Raises TritonModelException with its reason."""
    tensors = [pb_utils.Tensor(name, np.ascontiguousarray(values)) for name, values in inputs.items()]
    host = pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU)
    request = pb_utils.InferenceRequest(
        model_name=model, requested_output_names=outputs, inputs=tensors, preferred_memory=host
    )
    response = request.exec()
    if response.has_error():
        raise pb_utils.TritonModelException(f"{model}: {response.error().message()}")
    return [pb_utils.get_output_tensor_by_name(response, name).as_numpy() for name in outputs]


def _strings(request, name):
    """The texts of an input. Raises ValueError for bytes that are not UTF-8."""
    items = pb_utils.get_input_tensor_by_name(request, name).as_numpy().ravel()
    try:
        return [item.decode() for item in items]
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8: {error}") from error


def _refusal(words, kind):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(words, kind))
