"""The language model's export: a tiny one from transformers' folder to a served answer, and the real weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_decoder
from complete_server import complete_server
from prepared import ARTEFACTS, ROOT
from tiny_decoder import SHAPE, WORDS

from clients import Client, InferenceError
from export.errors import RecipeError
from export.exporter import export_model
from export.models.language import smollm2
from export.models.language.smollm2 import SmolLM2
from export.repository.manifest import Manifest
from fathom.recipes import measure_served

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
RECIPE = SmolLM2(prompts=2, text_rows=1)


def save_tiny(folder: Path) -> Path:
    """A folder as `save_pretrained` writes it, of the tiny decoder's weights, tokenizer and template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=SHAPE.hidden,
        intermediate_size=SHAPE.feed_forward,
        num_hidden_layers=SHAPE.layers,
        num_attention_heads=SHAPE.heads,
        num_key_value_heads=SHAPE.kv_heads,
        max_position_embeddings=SHAPE.context,
        rms_norm_eps=SHAPE.epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": SHAPE.rope_theta},
        tie_word_embeddings=True,
        eos_token_id=[2, 0],
    )
    network = LlamaForCausalLM(config)
    weights = {name: torch.from_numpy(each) for name, each in tiny_decoder.random_weights().items()}
    network.load_state_dict({**weights, "lm_head.weight": weights["model.embed_tokens.weight"]})
    network.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny_decoder.tiny_tokenizer(), eos_token="<|im_end|>")
    tokenizer.chat_template = TEMPLATE + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the model's folder alone, not exported."""
    made = tmp_path_factory.mktemp("language") / "model_repository"
    ignore = shutil.ignore_patterns(*ARTEFACTS)
    shutil.copytree(ROOT / "model_repository" / "smollm2", made / "smollm2", ignore=ignore)
    return made


@pytest.mark.process
def test_a_folder_of_weights_is_exported_and_served(repository, tmp_path):
    result = export_model(RECIPE, repository, weights=str(save_tiny(tmp_path / "tiny")))
    with complete_server(repository) as server, Client(server.grpc_url) as client:
        request = {"input_ids": np.array([5, 6]), "logits_at": np.array([1])}
        stations = measure_served(RECIPE, client, repository) | dict(result.manifest.stations)
        assert set(stations) == {"source", "onnx", "served"}
        for measured in stations.values():
            assert measured.accuracy["greedy_prompts"] == 1
            assert measured.accuracy["perplexity"] == pytest.approx(stations["source"].accuracy["perplexity"], 1e-4)
        for bad in ({"input_ids": np.array([WORDS])}, {"logits_at": np.array([2])}):
            with pytest.raises(InferenceError):
                client.model("smollm2")(request | bad)
        assert client.model("smollm2")(request)["logits"].shape == (1, WORDS)
    tokens = tiny_decoder.tiny_tokenizer()
    generation = json.loads((repository / "smollm2" / "1" / "generation.json").read_text())
    assert tokens.decode(generation["before"], skip_special_tokens=False) == "<|im_start|>user\n"
    assert generation["eos_ids"] == [2, 0]
    assert not Manifest.read(repository / "smollm2").changed_files(repository / "smollm2")
    assert export_model(RECIPE, repository, weights=str(tmp_path / "tiny")).skipped


def test_weights_that_are_not_installed_are_named_with_the_command(monkeypatch):
    monkeypatch.setattr(smollm2, "PACKAGE", "llm-of-nobody")
    with pytest.raises(RecipeError) as refused:
        SmolLM2().resolve(None)
    assert refused.value.expected == "llm-of-nobody"
    assert "--no-deps" in refused.value.remedy


def test_the_real_weights_answer_like_transformers(language_repository):
    manifest = Manifest.read(language_repository / "smollm2")
    assert manifest.source["licence"] == "Apache-2.0"
    source, full, reduced = (manifest.stations[name].accuracy for name in ("source", "onnx_fp32", "onnx"))
    assert source["greedy_prompts"] == full["greedy_prompts"] == 1
    assert full["perplexity"] == pytest.approx(source["perplexity"], rel=1e-4)
    assert reduced["greedy_tokens"] > 0.9
    assert reduced["perplexity"] == pytest.approx(source["perplexity"], rel=0.05)
