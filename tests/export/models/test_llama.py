"""The decoder's graph: the answers of transformers' own Llama, whatever way the text is fed to it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tiny_decoder
from numpy.typing import NDArray
from tiny_decoder import SHAPE

from export.errors import RecipeError
from export.models.language import llama

SLOTS, SLOT_TOKENS = 4, 64
TOLERANCE = 1e-4
"""Of logits of some 10: FP32 sums in another order."""


class Slots:
    """One cache for several texts, of which each step takes neighbouring rows and writes in place."""

    def __init__(self, model: Path) -> None:
        self._session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        size = (SLOTS, SHAPE.kv_heads, SLOT_TOKENS, SHAPE.head_size)
        self.caches = {name: np.full(size, np.nan, np.float32) for name in SHAPE.caches()}

    def step(self, tokens: Sequence[Sequence[int]], lengths: Sequence[int], first: int = 0) -> NDArray[np.float32]:
        """Logits [rows, new tokens, words]; `lengths` are those after this step."""
        ids, binding = np.array(tokens, np.int64), self._session.io_binding()
        logits = np.empty((*ids.shape, SHAPE.vocabulary), np.float32)
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("seqlens_k", np.array(lengths, np.int32) - np.int32(1))
        binding.bind_cpu_input("total_sequence_length", np.array([max(lengths)], np.int32))
        binding.bind_cpu_input("logits_at", np.arange(ids.shape[1]))
        binding.bind_output("logits", "cpu", 0, np.float32, list(logits.shape), logits.ctypes.data)
        for name, cache in self.caches.items():
            rows = cache[first : first + len(ids)]
            place = ("cpu", 0, np.float32, list(rows.shape), rows.ctypes.data)
            binding.bind_input(f"past_key_values.{name}", *place)
            binding.bind_output(f"present.{name}", *place)
        self._session.run_with_iobinding(binding)
        return logits

    def prefill(self, text: Sequence[int], pieces: Sequence[int], row: int = 0) -> NDArray[np.float32]:
        """Logits [tokens, words] of a text that is fed in pieces of these sizes."""
        ends = np.cumsum([0, *pieces])
        return np.concatenate([self.step([text[start:end]], [end], row)[0] for start, end in pairwise(ends)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "1"
    tiny_decoder.write_folder(folder)
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def source() -> object:
    """transformers' Llama with the same weights: a text's logits [tokens, words]."""
    import torch
    from transformers import LlamaForCausalLM

    network = LlamaForCausalLM(config()).eval()
    weights = {name: torch.from_numpy(each) for name, each in tiny_decoder.random_weights().items()}
    network.load_state_dict({**weights, "lm_head.weight": weights["model.embed_tokens.weight"]})

    def logits(text: Sequence[int]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return network(torch.tensor([text])).logits[0].numpy()

    return logits


def config(**changed):
    from transformers import LlamaConfig

    own = {
        "vocab_size": SHAPE.vocabulary,
        "hidden_size": SHAPE.hidden,
        "intermediate_size": SHAPE.feed_forward,
        "num_hidden_layers": SHAPE.layers,
        "num_attention_heads": SHAPE.heads,
        "num_key_value_heads": SHAPE.kv_heads,
        "max_position_embeddings": SHAPE.context,
        "rms_norm_eps": SHAPE.epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": SHAPE.rope_theta},
        "tie_word_embeddings": True,
    }
    return LlamaConfig(**{**own, **changed})


def text(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(3, SHAPE.vocabulary, length).tolist()


@pytest.mark.parametrize("pieces", [(20,), (6, 1, 13), (7, 13), (1,) * 20])
def test_a_prompt_in_pieces_gets_the_logits_of_transformers(model, source, pieces):
    assert Slots(model).prefill(text(20), pieces) == pytest.approx(source(text(20)), abs=TOLERANCE)


def test_rows_of_different_lengths_step_together_and_do_not_change_each_other(model, source):
    prompts = [text(20, 1), text(7, 2), text(3, 3)]
    lengths = [len(prompt) + 1 for prompt in prompts]
    together, alone = Slots(model), Slots(model)
    for row, prompt in enumerate(prompts):
        for slots in (together, alone):
            slots.prefill(prompt, [len(prompt)], row)
    given = together.step([[5], [6], [7]], lengths)
    for row, prompt in enumerate(prompts):
        assert np.array_equal(given[row], alone.step([[5 + row]], [lengths[row]], row)[0])
        assert given[row] == pytest.approx(source([*prompt, 5 + row])[-1:], abs=TOLERANCE)


def test_the_sizes_are_those_of_the_configuration():
    assert llama.Shape.of(config()) == SHAPE


@pytest.mark.parametrize(
    "changed",
    [
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"tie_word_embeddings": False},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    ],
)
def test_a_decoder_of_another_kind_is_refused(changed):
    with pytest.raises(RecipeError) as refused:
        llama.Shape.of(config(**changed))
    assert refused.value.field in changed or refused.value.field == "rope_type"
