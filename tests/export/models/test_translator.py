"""Translation models of others, in transformers' layout: their pieces, their export, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny_translator
from transformers import MarianTokenizer

from export.errors import RecipeError
from export.exporter import export_model
from export.models.translation import phrases, translator_vocabulary
from export.models.translation.translator import Translator

ROOT = Path(__file__).parents[3] / "model_repository"
TEXTS = [
    "May 3rd, 1998",
    "the twenty-first of September 2024",
    "  two   hundred\tand\nfive ",
    "ﬁve",  # a ligature, which SentencePiece takes apart
    "a ☃ of 5 €",  # a character that no piece has
    "",
]


@pytest.fixture(scope="module")
def texts() -> tuple[list[str], list[str]]:
    pairs = phrases.held_out_pairs(200, languages=("fr",))
    return [pair.text for pair in pairs], [pair.translation for pair in pairs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, texts) -> Path:
    """A model that translates to French."""
    made = tmp_path_factory.mktemp("marian") / "en-fr"
    tiny_translator.save(made, *texts)
    return made


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("translator") / "model_repository"
    for name in ("translator_decoder", *Translator.companions):
        shutil.copytree(ROOT / name, made / name, ignore=shutil.ignore_patterns("*.onnx", "*.json", "*.npz"))
    return made


@pytest.mark.filterwarnings("ignore:Recommended")
def test_a_text_is_cut_as_its_own_tokenizer_cuts_it(folder, texts):
    own, vocabulary = MarianTokenizer.from_pretrained(folder), translator_vocabulary.read(folder)

    for text in (*texts[0], *TEXTS):
        assert vocabulary.encode(text, "fr") == own(text).input_ids
    # Nobody ends a text or chooses a language by writing the marker.
    assert vocabulary.encode("</s> and >>de<<", "fr").count(vocabulary.end) == 1
    for text in texts[1]:
        tokens = vocabulary.encode_target(text)
        assert tokens == own(text_target=text).input_ids
        assert vocabulary.decode(tokens) == text


def test_another_model_goes_through_the_same_export(repository, folder):
    config = (repository / "translator_encoder" / "config.pbtxt").read_text()
    exported = export_model(Translator(rows=8), repository, weights=str(folder))

    stations = exported.manifest.stations
    assert stations["onnx"].accuracy["same_as_source"] == 1.0
    assert stations["onnx"].parity.max_abs < 1e-5
    assert (repository / "translator_encoder" / "config.pbtxt").read_text() == config
    assert "dims: [ -1, 32 ]" in (repository / "translator_decoder" / "config.pbtxt").read_text()
    settings = json.loads((repository / "translator" / "1" / "translation.json").read_text())
    assert settings["languages"] == {"fr": []}
    assert settings["context"] == tiny_translator.POSITIONS


def test_a_model_of_several_languages_has_each_by_its_code(tmp_path, repository, texts):
    tiny_translator.save(tmp_path / "en-mul", *texts, languages=("fra", "spa"))
    exported = export_model(Translator(rows=4), repository, weights=str(tmp_path / "en-mul"))

    settings = json.loads((repository / "translator" / "1" / "translation.json").read_text())
    assert settings["languages"].keys() == {"fra", "spa"}
    # The phrases have no translation to either, and so no text is the right one.
    assert exported.manifest.stations["source"].accuracy == {"exact_match": 0.0, "same_as_source": 1.0}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("vocab.json", lambda path: path.unlink()),
        ("vocab.json", lambda path: path.write_text('{"</s>": 0, "<unk>": 5}')),
        ("config.json", lambda path: path.write_text('{"model_type": "bert"}')),
        ("tokenizer_config.json", lambda path: path.write_text("{}")),
        ("source.spm", lambda path: path.write_bytes(_of_other_kind(path.read_bytes()))),
    ],
    ids=["no vocabulary", "ids left out", "no Marian model", "no language", "no unigram model"],
)
def test_a_folder_that_cannot_be_exported_is_refused(tmp_path, repository, folder, name, change):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    change(broken / name)
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}

    with pytest.raises(RecipeError):
        export_model(Translator(rows=4), repository, weights=str(broken))
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before


def _of_other_kind(spm: bytes) -> bytes:
    """The same pieces, to be cut by byte pairs."""
    from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

    proto = sentencepiece.ModelProto.FromString(spm)
    proto.trainer_spec.model_type = 2
    return proto.SerializeToString()
