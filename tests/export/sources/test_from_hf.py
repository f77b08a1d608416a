"""`source_hf`: which inputs a transformers folder is given, its class names, and what is said of the rest.

Nothing is exported here: `tests/fathom/test_add.py` serves two such folders.
"""

import json
from types import SimpleNamespace

import pytest
from imported_models import save_encoder, save_vision

from export.errors import RecipeError
from export.sources import from_hf, hf_processor

TEXT = {"input_ids", "attention_mask", "token_type_ids"}
SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 40,
}


def named(*names):
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def save(folder, kind, config, settings=None, **options):
    """A tiny untrained model, and its tokenizer's settings."""
    import transformers

    getattr(transformers, kind)(getattr(transformers, config)(**SMALL, **options)).save_pretrained(folder)
    if settings is not None:
        (folder / hf_processor.TOKENIZER).write_text(json.dumps(settings))
    return folder


def bert(settings, **options):
    return lambda folder: save(folder, "BertForSequenceClassification", "BertConfig", settings, **options)


INPUTS = [
    (bert({"tokenizer_class": "BertTokenizer"}), TEXT, [], "the tokenizer's class gives types"),
    (bert({"tokenizer_class": "BertTokenizerFast"}), TEXT, [], "the class of older transformers"),
    (bert({"tokenizer_class": "NoSuchTokenizer"}), TEXT, [], "the architecture's usual tokenizer gives types"),
    (bert(None), TEXT, [], "no tokenizer at all, but the usual one gives types"),
    (
        bert({"model_input_names": ["input_ids", "attention_mask"]}),
        {"input_ids", "attention_mask"},
        ["token_type_ids"],
        "the settings leave types out",
    ),
    (
        bert({"model_input_names": ["input_ids"]}),
        {"input_ids"},
        ["attention_mask", "token_type_ids"],
        "the settings leave the mask out",
    ),
    (
        bert({"tokenizer_class": "BertTokenizer"}, type_vocab_size=1),
        {"input_ids", "attention_mask"},
        ["token_type_ids"],
        "types that the tokenizer gives and the model cannot tell apart",
    ),
    (
        lambda folder: save(folder, "RobertaForSequenceClassification", "RobertaConfig", type_vocab_size=1),
        {"input_ids", "attention_mask"},
        [],
        "types that neither has",
    ),
    (
        lambda folder: save(folder, "LayoutLMForTokenClassification", "LayoutLMConfig"),
        TEXT,
        ["bbox"],
        "a layout that no tokenizer gives",
    ),
    (save_vision, {"pixel_values"}, [], "pictures"),
]


@pytest.mark.parametrize(("make", "names", "left_out", "why"), INPUTS, ids=[row[-1] for row in INPUTS])
def test_what_the_architecture_takes_and_the_processor_gives_is_an_input(make, names, left_out, why, tmp_path):
    loaded = from_hf.load(str(make(tmp_path / "hub")), tmp_path)
    assert set(loaded.predict.__self__.example) == names
    told = [note for note in loaded.notes if any(name in note for name in {*TEXT, "bbox"})]
    assert len(told) == bool(left_out)
    assert all(name in told[0] for name in left_out)


def test_an_image_processors_mask_is_an_input_of_the_pictures_size(tmp_path):
    class Network:
        main_input_name = "pixel_values"
        config = SimpleNamespace(image_size=[8, 6], num_channels=1)

        def forward(self, pixel_values, pixel_mask=None, labels=None, queries=None):
            raise NotImplementedError

    given = hf_processor.given(tmp_path, "detr", "pixel_values")
    inputs = from_hf._inputs(Network(), given, tmp_path)
    assert {name: tuple(each.shape) for name, each in inputs.example.items()} == {
        "pixel_values": (2, 1, 8, 6),
        "pixel_mask": (2, 8, 6),
    }
    assert inputs.left_out == ["queries"]


def test_outputs_of_every_layer_are_not_served_and_named(tmp_path):
    loaded = from_hf.load(str(bert(None, output_hidden_states=True)(tmp_path / "hub")), tmp_path)
    answer = loaded.predict({name: each.numpy() for name, each in loaded.predict.__self__.example.items()})
    assert list(answer) == ["logits"]
    assert any("output_hidden_states" in note for note in loaded.notes)


def test_a_model_that_needs_pictures_beside_texts_is_refused_by_their_name(tmp_path):
    folder = save(tmp_path / "hub", "ViltForQuestionAnswering", "ViltConfig", image_size=32, patch_size=8)
    with pytest.raises(RecipeError, match=r"pixel_values, pixel_mask.*--torch"):
        from_hf.load(str(folder), tmp_path)


CLASSES = [
    ("BertForSequenceClassification", named("no", "yes", "maybe"), {"logits": ["no", "yes", "maybe"]}, "named classes"),
    ("BertForTokenClassification", named("O", "PER"), {"logits": ["O", "PER"]}, "classes of tokens"),
    ("BertForSequenceClassification", {"num_labels": 3}, {}, "numbered classes, which nobody named"),
    ("BertForSequenceClassification", named("score"), {}, "one score, whose name ranks nothing"),
    ("BertModel", named("no", "yes"), {}, "names that a model without a head inherited"),
]


@pytest.mark.parametrize(("kind", "options", "labels", "why"), CLASSES, ids=[row[-1] for row in CLASSES])
def test_the_classes_of_a_classifier_are_its_labels(kind, options, labels, why, tmp_path):
    loaded = from_hf.load(str(save(tmp_path / "hub", kind, "BertConfig", **options)), tmp_path)
    assert loaded.labels == labels


def test_several_labels_at_once_are_reported(tmp_path):
    options = {"problem_type": "multi_label_classification", **named("a", "b")}
    loaded = from_hf.load(str(bert(None, **options)(tmp_path / "hub")), tmp_path)
    assert [note for note in loaded.notes if "sigmoid" in note]


def test_the_tokenizer_that_stays_with_the_client_is_named(tmp_path):
    folder = save_encoder(tmp_path / "hub")
    (without,) = from_hf.load(str(folder), tmp_path).notes
    assert "AutoTokenizer" not in without
    (folder / "vocab.txt").write_text("[PAD]\n")
    (with_one,) = from_hf.load(str(folder), tmp_path).notes
    assert f"AutoTokenizer.from_pretrained('{folder}')" in with_one


PICTURES = [
    ({}, ["[3, 24, 24]", "0.00392157"], ["mean"], "nothing but the scale is the default"),
    (
        {"do_rescale": False, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]},
        ["[0.5, 0.4, 0.3]", "[0.2, 0.2, 0.1]"],
        ["0.00392157"],
        "mean and deviation of each channel",
    ),
    (
        {"do_normalize": False, "image_mean": [0.4], "rescale_factor": 0.5},
        ["0.5"],
        ["0.4", "mean"],
        "not normalised",
    ),
]


@pytest.mark.parametrize(("rule", "words", "absent", "why"), PICTURES, ids=[row[-1] for row in PICTURES])
def test_what_clients_do_to_pictures_is_reported(rule, words, absent, why, tmp_path):
    folder = save_vision(tmp_path / "hub")
    (folder / hf_processor.PICTURES).write_text(json.dumps({"size": 24, **rule}))
    (note,) = from_hf.load(str(folder), tmp_path).notes
    assert all(word in note for word in words)
    assert not any(word in note for word in absent)
