"""The two graphs of a Marian model give the numbers of transformers."""

from __future__ import annotations

import numpy as np
import pytest
import repository_code
import tiny_translator
import torch

from export.errors import RecipeError
from export.graph import onnx_file
from export.models.translation import marian

VOCABULARY, WIDTH = 50, 12
LENGTHS = (3, 7, 12, 9)
LONGEST = 19


@pytest.fixture(scope="module")
def network():
    return tiny_translator.network(VOCABULARY)


@pytest.fixture(scope="module")
def graphs(network):
    shape, tensors = marian.Shape.of(network.config), network.state_dict()
    return [
        onnx_file.session(made(shape, lambda name: tensors[name].numpy()).SerializeToString())
        for made in (marian.encoder, marian.decoder)
    ]


@pytest.fixture(scope="module")
def texts():
    """Token ids and masks of texts of different lengths, padded."""
    random = np.random.default_rng(0)
    ids = np.full((len(LENGTHS), WIDTH), VOCABULARY - 1)
    mask = np.zeros((len(LENGTHS), WIDTH), np.int64)
    for row, length in enumerate(LENGTHS):
        ids[row, :length] = [*random.integers(1, VOCABULARY - 1, length - 1), 0]
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture(scope="module")
def states(graphs, texts):
    return graphs[0](texts)["states"].reshape(len(LENGTHS), WIDTH, -1)


def test_the_encoder_gives_its_states(network, texts, states):
    with torch.inference_mode():
        expected = network.model.encoder(*map(torch.from_numpy, texts.values())).last_hidden_state.numpy()
    assert np.abs(states - expected)[texts["attention_mask"] == 1].max() < 1e-5


def test_a_step_gives_the_likeliest_tokens_and_never_padding(network, graphs, texts, states):
    written = np.random.default_rng(1).integers(1, VOCABULARY - 1, (len(LENGTHS), 5))
    given = {"decoder_input_ids": written, "states": states, "attention_mask": texts["attention_mask"]}
    step = graphs[1](given)

    with torch.inference_mode():
        everything = {**texts, "decoder_input_ids": written}
        logits = network(**{name: torch.from_numpy(values) for name, values in everything.items()}).logits[:, -1]
    expected = logits.log_softmax(-1)
    expected[:, VOCABULARY - 1] = -np.inf
    values, ids = (found.numpy() for found in expected.topk(marian.CANDIDATES))
    assert (step["ids"] == ids).all()
    assert np.abs(step["log_probabilities"] - values).max() < 1e-5


def test_zeros_throughout_give_numbers(graphs):
    """Triton's warm-up sends them, mask included."""
    empty = np.zeros((2, 4), np.int64)
    assert np.isfinite(graphs[0]({"input_ids": empty, "attention_mask": empty})["states"]).all()


@pytest.mark.parametrize("beams", [1, 2, 3, 4])
def test_the_search_finds_what_generate_finds(network, graphs, texts, states, beams):
    (search,) = repository_code.load("translator", "search")
    made = network.generate(
        **{name: torch.from_numpy(values) for name, values in texts.items()},
        num_beams=beams,
        do_sample=False,
        max_length=LONGEST + 1,
        bad_words_ids=[[VOCABULARY - 1]],
        output_scores=True,
        return_dict_in_generate=True,
    )
    for row, expected in enumerate(made.sequences[:, 1:].tolist()):
        found = search.Search(beams=beams, start=VOCABULARY - 1, end=0, longest=LONGEST)
        while not found.done:
            count = len(found.written)
            given = {
                "decoder_input_ids": np.array(found.written),
                "states": np.repeat(states[row : row + 1], count, axis=0),
                "attention_mask": np.repeat(texts["attention_mask"][row : row + 1], count, axis=0),
            }
            step = graphs[1](given)
            found.advance(step["ids"], step["log_probabilities"])
        tokens, score = found.best()
        assert tokens == expected[: expected.index(0) + 1]
        if beams > 1:
            assert score == pytest.approx(float(made.sequences_scores[row]), abs=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("activation_function", "gelu"),
        ("share_encoder_decoder_embeddings", False),
        ("tie_word_embeddings", False),
        ("eos_token_id", 2),
    ],
)
def test_another_kind_of_model_is_refused(field, value):
    config = tiny_translator.network(VOCABULARY).config
    setattr(config, field, value)
    with pytest.raises(RecipeError) as raised:
        marian.Shape.of(config)
    assert raised.value.field == field
    assert raised.value.found == value
