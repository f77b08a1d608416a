"""The ten most similar tracks: a query's vector or a track's id in, ids, descriptions and similarities out.

The catalogue lies inside the graph: the vectors of its descriptions, made by MiniLM at export, with ids and texts. So a
new catalogue is a new version of the model, and a version never mixes two. With `--weights FOLDER` the catalogue is the
FOLDER's tracks.csv (see `export.models.tracks.catalogue`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from export.errors import RecipeError
from export.models.text.minilm import MiniLM, tokens
from export.models.tracks import catalogue
from export.models.tracks.catalogue import Track
from export.precision.precision import INT8
from export.recipe.limits import Figure, Reduced, Tolerance
from export.recipe.recipe import BUNDLED, Array, Arrays, Evaluation, Progress, Recipe, Source, Weights, no_progress
from export.recipe.system import Question, System

REQUESTS = Path(__file__).with_name("track_requests.txt")
ANY = "any"
FOUND = 10
NEAREST = 64
"""How many of each query's nearest tracks the evaluation names: those a lossy search may still be forgiven for."""

TIE = 1e-6
"""Of a cosine: tracks that are no further from the tenth best are as good."""

OUT_OF_REACH = -2.0
"""The cosine that a track has with itself when it is asked for others."""

EMBEDDED_TOGETHER = 32


class SimilarTracks(Recipe):
    """`vector` FP32 [N, 384], `track_id` INT64 [N, 1] (0: search by the vector) -> `track_ids` INT64 [N, 10], `tracks`
    BYTES [N, 10], `scores` FP32 [N, 10], best first, and `known` BOOL [N, 1], false for an id of no track."""

    name = "track_search"
    summary = f"search of {catalogue.SIZE:,} tracks by similarity (MiniLM)"
    figures = (
        Figure(
            "recall_at_10",
            "fraction of the ten tracks of an exact search that are found; one that is as near as the tenth counts",
            tolerance=0.0,
        ),
        Figure("genre_at_10", "fraction of what is found by a text that is of the genre meant", tolerance=0.005),
    )
    tolerance = Tolerance(max_abs=1e-5, min_cosine=0.9999)
    not_compared: ClassVar[frozenset[str]] = frozenset({"track_ids", "tracks", "known"})
    # Vectors in blocks of 8 bits are a quarter of the memory that every search reads.
    reduced: ClassVar[dict[str, Reduced]] = {
        INT8: Reduced(Tolerance(max_abs=0.02, min_cosine=0.9999), losses={"recall_at_10": 0.05}, weights_only=True),
    }
    why_not_reduced = "on a CPU it would compute in FP32 between casts"
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers")

    def __init__(self, tracks: int = catalogue.SIZE) -> None:
        self._count = tracks

    @property
    def systems(self) -> tuple[System, ...]:
        """`text` BYTES [N, 1] or `track_id` INT64 [N, 1]; an empty text or 0 is none."""
        return (
            System(
                "similar_tracks",
                ("text_embedding", "text_tokenizer", "minilm"),
                requests=self._requests,
                question=lambda: Question(
                    "tracks like: calm solo piano", {"text": np.array([[b"calm solo piano"]], object)}
                ),
            ),
        )

    def resolve(self, weights: str | None) -> Weights:
        """The embedding's files, with `tracks.csv` of a folder that a person named."""
        embedding = MiniLM().resolve(None)
        if weights in (None, BUNDLED):
            description = f"{self._count:,} generated tracks, embedded with {embedding.description}"
            return replace(embedding, description=description, explicit=weights is not None)
        path = Path(weights).expanduser() / catalogue.FILE
        if not path.is_file():
            raise RecipeError(
                f"--weights {weights} holds no {catalogue.FILE}",
                remedy=f"name a folder with a {catalogue.FILE} of the columns id and text",
                file=path,
                field="weights",
            )
        files = {**embedding.files, catalogue.FILE: path}
        description = f"tracks of the folder '{path.parent.name}', embedded with {embedding.description}"
        return replace(embedding, description=description, files=files, custom=True, explicit=True)

    def load(self, weights: Weights) -> Source:
        return self.load_showing(weights, no_progress)

    def load_showing(self, weights: Weights, on_progress: Progress) -> Source:
        own = weights.files.get(catalogue.FILE)
        tracks = catalogue.read(own) if own is not None else catalogue.generated(self._count)
        embedding = MiniLM().load(MiniLM().resolve(None))
        asked = _asked(generated=own is None)
        vectors = embed(embedding, [text for _, text in asked] + [track.text for track in tracks], on_progress)
        queries, vectors = vectors[: len(asked)], vectors[len(asked) :]
        search = Search.of(tracks, vectors)
        return Source(search.predict, search.write_onnx, _evaluation(search, asked, queries))

    def evaluation(self) -> Evaluation:
        """Embeds the catalogue: the tracks that are nearest are its own."""
        return self.load(self.resolve(None)).evaluation

    def score(self, outputs: Arrays, evaluation: Evaluation, source: Arrays | None = None) -> dict[str, float]:
        truth = evaluation.truth
        as_near = truth["near_scores"] >= truth["near_scores"][:, FOUND - 1 : FOUND] - TIE
        found = outputs["track_ids"]
        right = [
            len({*ids.tolist()} & {*near[good].tolist()})
            for ids, near, good in zip(found, truth["near_ids"], as_near, strict=True)
        ]
        figures = {"recall_at_10": float(np.minimum(right, FOUND).mean() / FOUND)}
        meant = truth["genre"]
        if not (meant != "").any():
            return figures
        texts = [[_text(track) for track in row] for row in outputs["tracks"][meant != ""]]
        of_genre = [
            f" {genre}," in track for genre, row in zip(meant[meant != ""], texts, strict=True) for track in row
        ]
        return {**figures, "genre_at_10": float(np.mean(of_genre))}

    def interpret(self, outputs: Arrays, labels: Sequence[str] = ()) -> list[str]:
        """The first three: "1234 Clara Frost - Paper Lantern. Dreamy indie folk, ... (0.71); ..."."""
        return [
            "; ".join(
                f"{number} {_text(track)} ({score:.2f})"
                for number, track, score in list(zip(ids, tracks, scores, strict=True))[:3]
            )
            for ids, tracks, scores in zip(outputs["track_ids"], outputs["tracks"], outputs["scores"], strict=True)
        ]

    def data(self) -> tuple[Path, ...]:
        return REQUESTS, catalogue.WORDS, Path(catalogue.__file__)

    def _requests(self) -> dict[str, Array]:
        """The evaluation's of the generated catalogue, without its vectors."""
        asked = [text for _, text in _asked(generated=True)]
        return _raw(asked, _drawn(np.arange(1, self._count + 1), len(asked)))


@dataclass(frozen=True)
class Search:
    """A catalogue to search: `ids` INT64 [tracks], `texts`, and their unit vectors FP32 [tracks, 384]."""

    ids: Array
    texts: Array
    vectors: Array

    @staticmethod
    def of(tracks: Sequence[Track], vectors: Array) -> Search:
        """Of tracks and their vectors in the same order."""
        ids, texts = np.array([track.id for track in tracks]), np.array([track.text for track in tracks], object)
        return Search(ids, texts, np.ascontiguousarray(vectors, np.float32))

    def nearest(self, arrays: Arrays, count: int) -> tuple[Array, Array]:
        """Places in the catalogue INT64 [N, count] and cosines FP64 [N, count] by exact search, in order."""
        same = arrays["track_id"] == self.ids
        own = self.vectors[same.argmax(axis=1)]
        queries = np.where(same.any(axis=1, keepdims=True), own, arrays["vector"])
        cosines = queries.astype(np.float64) @ self.vectors.T.astype(np.float64)
        cosines[same] = OUT_OF_REACH
        places = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        return places, np.take_along_axis(cosines, places, axis=1)

    def predict(self, arrays: Arrays) -> dict[str, Array]:
        """The exact search, in FP64."""
        places, cosines = self.nearest(arrays, FOUND)
        known = np.isin(arrays["track_id"], [0, *self.ids])
        found = {"track_ids": self.ids[places], "tracks": self.texts[places]}
        return {**found, "scores": cosines.astype(np.float32), "known": known}

    def write_onnx(self, path: Path) -> None:
        """The same in FP32 as an ONNX graph: one product with all vectors, and TopK."""
        from onnx import TensorProto, helper, numpy_helper

        from export.graph import onnx_file

        def node(kind: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> Any:
            return helper.make_node(kind, inputs, outputs, name=outputs[0], **attributes)

        number, real, text = TensorProto.INT64, TensorProto.FLOAT, TensorProto.STRING
        nodes = [
            node("Equal", ["track_id", "ids"], "same"),
            node("Cast", ["same"], "same_number", to=real),
            node("ArgMax", ["same_number"], "place", axis=1),
            node("Gather", ["vectors", "place"], "own_row"),
            node("Squeeze", ["own_row", "axis"], "own"),
            node("ReduceMax", ["same_number", "axis"], "in_catalogue_number"),
            node("Cast", ["in_catalogue_number"], "in_catalogue", to=TensorProto.BOOL),
            node("Where", ["in_catalogue", "own", "vector"], "query"),
            node("Gemm", ["query", "vectors"], "cosines", transB=1),
            node("Where", ["same", "out_of_reach", "cosines"], "of_others"),
            node("TopK", ["of_others", "found"], "scores", "places", axis=1),
            node("Gather", ["ids", "places"], "track_ids"),
            node("Gather", ["texts", "places"], "tracks"),
            node("Equal", ["track_id", "none"], "by_vector"),
            node("Or", ["in_catalogue", "by_vector"], "known"),
        ]
        constants = {
            "ids": self.ids.astype(np.int64),
            "vectors": self.vectors,
            "axis": np.array([1], np.int64),
            "out_of_reach": np.array(OUT_OF_REACH, np.float32),
            "found": np.array([FOUND], np.int64),
            "none": np.array(0, np.int64),
        }
        texts = helper.make_tensor("texts", text, [len(self.texts)], [each.encode() for each in self.texts])
        shapes = {"track_ids": (number, FOUND), "tracks": (text, FOUND), "scores": (real, FOUND)}
        graph = helper.make_graph(
            nodes,
            "track_search",
            [
                helper.make_tensor_value_info("vector", real, ["batch", self.vectors.shape[1]]),
                helper.make_tensor_value_info("track_id", number, ["batch", 1]),
            ],
            [
                *(helper.make_tensor_value_info(name, kind, ["batch", size]) for name, (kind, size) in shapes.items()),
                helper.make_tensor_value_info("known", TensorProto.BOOL, ["batch", 1]),
            ],
            [*(numpy_helper.from_array(values, name) for name, values in constants.items()), texts],
        )
        opsets = [helper.make_opsetid("", onnx_file.OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=onnx_file.IR_VERSION)
        onnx_file.finish(model, path.parent, path)


def embed(embedding: Source, texts: Sequence[str], on_progress: Progress = no_progress) -> Array:
    """The texts' vectors, FP32 [texts, 384], by MiniLM's source. Texts of equal length share a batch."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(embedding.assets["text_tokenizer"]["1/tokenizer.json"].decode())
    inputs = tokens(tokenizer, texts)
    lengths = inputs["attention_mask"].sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    parts = []
    for start in range(0, len(order), EMBEDDED_TOGETHER):
        rows = order[start : start + EMBEDDED_TOGETHER]
        on_progress("embed the tracks", start, len(order))
        batch = {name: values[rows, : lengths[rows[-1]]] for name, values in inputs.items()}
        parts.append(embedding.predict(batch)["sentence_embedding"])
    on_progress("embed the tracks", len(order), len(order))
    vectors = np.empty((len(order), parts[0].shape[1]), np.float32)
    vectors[order] = np.concatenate(parts)
    return vectors


def _asked(*, generated: bool) -> list[tuple[str, str]]:
    """The genre that each request means, empty for any or where the catalogue is not ours, and its text."""
    lines = [line for line in REQUESTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    pairs = [(genre, text) for genre, _, text in (line.partition(": ") for line in lines)]
    return [(genre if generated and genre != ANY else "", text) for genre, text in pairs]


def _drawn(ids: Array, count: int) -> Array:
    """So many ids, all different as far as there are so many, drawn with a fixed seed."""
    return np.resize(np.random.default_rng(0).permutation(ids)[:count], count)


def _raw(texts: Sequence[str], ids: Array) -> dict[str, Array]:
    """Each text, then each id, as `similar_tracks` takes them."""
    asked = [text.encode() for text in texts] + [b""] * len(ids)
    numbers = np.concatenate([np.zeros(len(texts), np.int64), ids])
    return {"text": np.array(asked, object)[:, None], "track_id": numbers[:, None]}


def _evaluation(search: Search, asked: Sequence[tuple[str, str]], queries: Array) -> Evaluation:
    """The texts' vectors, then as many ids of the catalogue, with what is nearest."""
    requests = _raw([text for _, text in asked], _drawn(search.ids, len(asked)))
    vectors = np.concatenate([queries, np.zeros_like(queries)])
    inputs = {"vector": vectors, "track_id": requests["track_id"]}
    places, cosines = search.nearest(inputs, min(NEAREST, len(search.ids)))
    genre = np.array([genre for genre, _ in asked] + [""] * len(asked))
    truth = {"near_ids": search.ids[places], "near_scores": cosines, "genre": genre}
    return Evaluation(inputs, truth, requests=requests)


def _text(track: Any) -> str:
    return track.decode() if isinstance(track, bytes) else str(track)
