"""Text or the id of a track in, the ten most similar tracks out: embeds the texts, then searches for all at once.

The requests that Triton hands over together are answered together, and each is refused for its own rows alone.
"""

import json

import numpy as np
import triton_python_backend_utils as pb_utils

PARAMETERS = {"embedding", "search", "vector_size"}
FOUND = ("track_ids", "tracks", "scores")


class TritonPythonModel:
    def initialize(self, args):
        model = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in model["parameters"].items()}
        if set(given) != PARAMETERS:
            raise pb_utils.TritonModelException(f"parameters are {sorted(given)}: give {sorted(PARAMETERS)}")
        self.embedding, self.search, self.vector_size = given["embedding"], given["search"], int(given["vector_size"])

    def execute(self, requests):
        read_ones = [read(request) for request in requests]
        asked = [rows for rows in read_ones if isinstance(rows, Rows)]
        found = iter(self._found(asked))
        return [next(found) if isinstance(each, Rows) else each for each in read_ones]

    def _found(self, asked):
        """The answers to all these, from one search."""
        try:
            found = self._search(asked) if asked else {}
        except pb_utils.TritonModelException as error:
            unavailable = pb_utils.TritonError(str(error), pb_utils.TritonError.UNAVAILABLE)
            return [pb_utils.InferenceResponse(error=unavailable) for _ in asked]
        ends = np.cumsum([len(rows) for rows in asked], dtype=int)
        parts = zip(*(np.split(found[name], ends[:-1]) for name in found), strict=True)
        return [answer(rows, dict(zip(found, part, strict=True))) for rows, part in zip(asked, parts, strict=True)]

    def _search(self, asked):
        ids = np.concatenate([rows.ids for rows in asked])
        texts = np.concatenate([rows.texts for rows in asked])
        vectors = np.zeros((len(ids), self.vector_size), np.float32)
        by_text = ids == 0
        if by_text.any():
            (vectors[by_text],) = call(self.embedding, {"text": texts[by_text, None]}, ["sentence_embedding"]).values()
        return call(self.search, {"vector": vectors, "track_id": ids[:, None]}, [*FOUND, "known"])


class Rows:
    """What the rows of one request ask by: an id, or where that is 0 a text."""

    def __init__(self, texts, ids):
        self.texts, self.ids = texts, ids

    def __len__(self):
        return len(self.ids)


def call(model, inputs, outputs):
    """The named outputs of another model, from its newest version. Raises TritonModelException with its reason.

    Its status is not known: older servers make that of every called model INTERNAL.
    """
    tensors = [pb_utils.Tensor(name, values) for name, values in inputs.items()]
    request = pb_utils.InferenceRequest(model_name=model, inputs=tensors, requested_output_names=outputs)
    response = request.exec()
    if response.has_error():
        raise pb_utils.TritonModelException(f"{model}: {response.error().message()}")
    return {name: pb_utils.get_output_tensor_by_name(response, name).as_numpy() for name in outputs}


def read(request):
    """The rows of a request, or its refusal."""
    texts, ids = (values(request, name) for name in ("text", "track_id"))
    if texts is None and ids is None:
        return refused("neither text nor track_id is given: send one of them")
    texts = np.full(len(ids), b"", object) if texts is None else texts
    ids = np.zeros(len(texts), np.int64) if ids is None else ids
    try:
        for row, (text, track_id) in enumerate(zip(texts, ids, strict=True)):
            check(row, text, track_id)
    except ValueError as error:
        return refused(str(error))
    return Rows(texts, ids)


def values(request, name):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy().reshape(-1)


def check(row, text, track_id):
    """Raise ValueError with a sentence for a row that has not either a text or an id."""
    try:
        empty = not text.decode().strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"text {row} is not UTF-8: {error}") from error
    if track_id < 0:
        raise ValueError(f"track_id {row} is {track_id}: ids are whole numbers from 1 on")
    if track_id and not empty:
        raise ValueError(f"row {row} has both a text and the track_id {track_id}: send one of them")
    if empty and not track_id:
        raise ValueError(f"text {row} is empty: send at least one word, or a track_id")


def answer(rows, found):
    unknown = rows.ids[~found["known"][:, 0]]
    if len(unknown):
        return refused(
            f"no track of the catalogue has the id {unknown[0]}: it is wrong, or was taken out; ask by a text"
        )
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, found[name]) for name in FOUND])


def refused(message):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
