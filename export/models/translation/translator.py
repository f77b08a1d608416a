"""Translation with a Marian encoder-decoder: English text in, French or German out, by a greedy or a beam search.

The bundled model is small, and knows numbers, dates and amounts; `train` made its weights. With `--weights` any
Marian model of transformers is exported by the same code, such as Helsinki-NLP/opus-mt-en-fr.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from export.errors import RecipeError
from export.models.translation import marian, phrases, translator_vocabulary
from export.models.translation.phrases import Pair
from export.models.translation.translator_search import generated, greedy
from export.models.translation.translator_vocabulary import Vocabulary
from export.precision.precision import INT8
from export.recipe import weight_files
from export.recipe.limits import Figure, Reduced, Tolerance
from export.recipe.recipe import BUNDLED, Array, Arrays, Axes, AxisRange, Evaluation, Predict, Recipe, Source, Weights
from export.recipe.system import Question, System

WEIGHTS = Path(__file__).with_name("translator.safetensors")
NAME, ENCODER = "translator", "translator_encoder"
TOKENIZER, SETTINGS = "source.json", "translation.json"
POSITIONS = 32
"""The longest text of the bundled model in tokens: all phrases have fewer than 24."""

ROWS = 200
"""How many phrases the model is judged on, half of them in each language."""

TEXT, TRUTH = "May 17th, 1998", "dix-sept mai mille neuf cent quatre-vingt-dix-huit"
"""A date that is never trained on."""


class Translator(Recipe):
    """One step of the decoder (`export.models.translation.marian`); the encoder and the texts are its companions.

    A row of the evaluation is the decoder's first step. Every station translates it greedily from there: see `judged`.
    """

    name = "translator_decoder"
    summary = "translation of numbers and dates (Marian encoder-decoder, English to French and German)"
    figures = (
        Figure("exact_match", f"fraction of {ROWS} phrases, never trained on, translated as num2words does", 0.0),
        Figure("same_as_source", "fraction of these with the translation of transformers' greedy search", 0.0),
    )
    tolerance = Tolerance(max_abs=1e-3, min_cosine=0.9999)
    reduced: ClassVar[Mapping[str, Reduced]] = {
        INT8: Reduced(
            Tolerance(max_abs=1.0, min_cosine=0.9),
            losses={"exact_match": 0.02, "same_as_source": 0.02},
            weights_only=True,
        ),
    }
    why_not_reduced = "on a CPU it would compute in FP32 between casts"
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "num2words")
    companions: ClassVar[tuple[str, ...]] = (ENCODER, NAME)
    axis_ranges: ClassVar[Axes] = {
        "decoder_input_ids": {1: (AxisRange(1, 12, POSITIONS),)},
        "states": {1: (AxisRange(1, 12, POSITIONS),)},
        "attention_mask": {1: (AxisRange(1, 12, POSITIONS),)},
    }
    # Equal texts may be cut into other pieces: `score` compares the texts.
    not_compared: ClassVar[frozenset[str]] = frozenset({"tokens"})

    def __init__(self, *, rows: int = ROWS) -> None:
        self._rows = rows

    @property
    def systems(self) -> tuple[System, ...]:
        """`text` and `language` BYTES [N, 1] -> `translation` BYTES [N, 1], by both graphs."""
        return (System(NAME, (ENCODER,), _held_out_requests, _question, _sentences),)

    def resolve(self, weights: str | None) -> Weights:
        phrases.num2words()
        if weights not in (None, BUNDLED):
            return weight_files.find(weights, needs=("config.json", *translator_vocabulary.FILES))
        return weight_files.trained_here(
            WEIGHTS, "python -m export.models.translation.train", explicit=weights is not None
        )

    def load(self, weights: Weights) -> Source:
        import torch

        network, vocabulary = _bundled() if weights.folder is None else _from_folder(weights.folder)
        shape = marian.Shape.of(network.config)
        tensors = network.state_dict()

        def weight(name: str) -> Array:
            return np.asarray(tensors[name].numpy())

        def predict(arrays: Arrays) -> dict[str, Array]:
            with _one_thread():
                return generated(network, {name: torch.from_numpy(values) for name, values in arrays.items()})

        def write_onnx(path: Path) -> None:
            path.write_bytes(marian.decoder(shape, weight).SerializeToString(deterministic=True))

        penalty = network.generation_config.length_penalty
        pairs = _judged_pairs(self._rows, vocabulary)
        settings = {
            "pieces": vocabulary.pieces,
            "languages": vocabulary.languages,
            "unknown": vocabulary.unknown,
            "end": vocabulary.end,
            "start": network.config.decoder_start_token_id,
            "padding": shape.pad,
            "context": shape.positions,
            "most_digits": phrases.DIGITS if weights.folder is None else None,
            "length_penalty": 1.0 if penalty is None else penalty,
        }
        return Source(
            predict,
            write_onnx,
            _evaluation(network, vocabulary, pairs),
            assets={
                ENCODER: {"1/model.onnx": marian.encoder(shape, weight).SerializeToString(deterministic=True)},
                NAME: {
                    f"1/{TOKENIZER}": vocabulary.source.to_str().encode() + b"\n",
                    f"1/{SETTINGS}": json.dumps(settings, ensure_ascii=False).encode() + b"\n",
                },
            },
        )

    def evaluation(self) -> Evaluation:
        """Loads the model: what the decoder is given is what the encoder makes of the texts."""
        return self.load(self.resolve(None)).evaluation

    def judged(self, predict: Predict) -> Predict:
        """The whole translation: `tokens` INT64 [N, LONGEST], filled with the end, and `score` FP32 [N, 1].

        The score is the mean log-probability of the tokens. The system, which is asked for texts, answers with
        `translation` instead of `tokens`.
        """

        def translated(inputs: Arrays) -> Arrays:
            return predict(inputs) if "text" in inputs else greedy(predict, inputs)

        return translated

    def score(self, outputs: Arrays, evaluation: Evaluation, source: Arrays | None = None) -> dict[str, float]:
        pieces = [str(piece) for piece in evaluation.truth["pieces"]]
        given = _texts(outputs, pieces)
        right = [str(text) for text in evaluation.truth["translation"]]
        figures = {"exact_match": _share_equal(given, right)}
        return figures if source is None else figures | {"same_as_source": _share_equal(given, _texts(source, pieces))}

    def interpret(self, outputs: Arrays, labels: Sequence[str] = ()) -> list[str]:
        """The likeliest next token: "next token 48 (log-probability -0.01)"."""
        best = zip(outputs["ids"][:, 0], outputs["log_probabilities"][:, 0], strict=True)
        return [f"next token {token} (log-probability {figure:.2f})" for token, figure in best]


def bundled_config(vocabulary: Vocabulary) -> Any:
    """The configuration of the bundled model: 128 wide, three layers to read and two to write."""
    from transformers import MarianConfig

    pad = vocabulary.ids[translator_vocabulary.PAD]
    return MarianConfig(
        vocab_size=len(vocabulary.pieces),
        d_model=128,
        encoder_layers=3,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
        max_position_embeddings=POSITIONS,
        activation_function="swish",
        scale_embedding=True,
        dropout=0.0,
        pad_token_id=pad,
        decoder_start_token_id=pad,
        eos_token_id=vocabulary.end,
        forced_eos_token_id=vocabulary.end,
    )


def _bundled() -> tuple[Any, Vocabulary]:
    from safetensors import safe_open
    from transformers import MarianMTModel

    with safe_open(WEIGHTS, "pt") as file:
        vocabulary = translator_vocabulary.from_metadata(file.metadata())
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    network: Any = MarianMTModel(bundled_config(vocabulary))
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    if unexpected or any("embed_" not in name and name != "lm_head.weight" for name in missing):
        raise RecipeError(f"{WEIGHTS.name} does not fit the network: missing {missing}, unexpected {unexpected}")
    return network.eval(), vocabulary


def _from_folder(folder: Path) -> tuple[Any, Vocabulary]:
    import torch
    from transformers import AutoConfig, MarianMTModel

    marian.Shape.of(AutoConfig.from_pretrained(folder))  # before transformers fills gaps with random weights
    vocabulary = translator_vocabulary.read(folder)
    network = MarianMTModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
    return network.eval(), vocabulary


def _judged_pairs(rows: int, vocabulary: Vocabulary) -> list[Pair]:
    """Phrases never trained on, in the languages of the model; in one that the phrases are not in, without a truth."""
    pairs = phrases.held_out_pairs(rows)
    known = [language for language in phrases.LANGUAGES if language in vocabulary.languages]
    if len(known) == len(phrases.LANGUAGES):
        return pairs
    language = (known or list(vocabulary.languages))[0]
    if not known:
        return [Pair(pair.text, language, "") for pair in pairs]
    return phrases.held_out_pairs(rows, languages=(language,))


def _evaluation(network: Any, vocabulary: Vocabulary, pairs: Sequence[Pair]) -> Evaluation:
    """The first step of each, with the states of its text as transformers' encoder makes them, padded with zeros."""
    import torch

    cut = [vocabulary.encode(pair.text, pair.language) for pair in pairs]
    width = max(map(len, cut))
    ids = np.full((len(cut), width), network.config.pad_token_id)
    mask = np.zeros((len(cut), width), np.int64)
    for row, tokens in enumerate(cut):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    with _one_thread():
        states = network.model.encoder(torch.from_numpy(ids), torch.from_numpy(mask)).last_hidden_state.numpy()
    inputs = {
        "decoder_input_ids": np.full((len(cut), 1), network.config.decoder_start_token_id),
        "states": states * mask[:, :, None].astype(np.float32),
        "attention_mask": mask,
    }
    truth = {"translation": np.array([pair.translation for pair in pairs]), "pieces": np.array(vocabulary.pieces)}
    return Evaluation(inputs, truth, mask="attention_mask", requests=_requests(pairs))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch without gradients, on one thread: steps of a few rows are so small that threads mostly wait for others."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


def _held_out_requests() -> dict[str, Array]:
    return _requests(phrases.held_out_pairs(ROWS))


def _question() -> Question:
    return Question(f'in French: "{TEXT}"', _requests([Pair(TEXT, "fr", TRUTH)]), TRUTH)


def _sentences(outputs: Arrays) -> list[str]:
    """The translations."""
    return [text.decode() for text in outputs["translation"].ravel()]


def _requests(pairs: Sequence[Pair]) -> dict[str, Array]:
    columns = ([pair.text for pair in pairs], [pair.language for pair in pairs])
    return {
        name: np.array([[text.encode()] for text in column], object)
        for name, column in zip(("text", "language"), columns, strict=True)
    }


def _texts(outputs: Arrays, pieces: Sequence[str]) -> list[str]:
    """The translations of a station that answers with tokens or with texts."""
    if "translation" in outputs:
        return _sentences(outputs)
    return [translator_vocabulary.joined(pieces[token] for token in row) for row in outputs["tokens"]]


def _share_equal(given: Sequence[str], right: Sequence[str]) -> float:
    return float(np.mean([one == other for one, other in zip(given, right, strict=True)]))
