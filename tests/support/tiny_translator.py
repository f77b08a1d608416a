"""A tiny Marian model with random weights, as transformers saves one: networks, and a folder with its vocabulary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel

POSITIONS = 40


def network(vocabulary: int, seed: int = 0) -> Any:
    """Two layers to read and two to write, of unequal sizes; weights so large that its choices are clear."""
    torch.manual_seed(seed)
    config = MarianConfig(
        vocab_size=vocabulary,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=48,
        max_position_embeddings=POSITIONS,
        activation_function="swish",
        scale_embedding=True,
        dropout=0.0,
        pad_token_id=vocabulary - 1,
        decoder_start_token_id=vocabulary - 1,
        eos_token_id=0,
        forced_eos_token_id=0,
        init_std=0.3,
    )
    made = MarianMTModel(config).eval()
    with torch.no_grad():
        made.final_logits_bias.copy_(torch.randn(1, vocabulary))
    return made


def save(folder: Path, source: Sequence[str], target: Sequence[str], *, languages: Sequence[str] = ()) -> Any:
    """A folder like that of Helsinki-NLP's models, its pieces made of these texts; returns the network.

    With `languages` it translates to several, else to French.
    """
    folder.mkdir(parents=True)
    pieces: dict[str, None] = {"</s>": None, "<unk>": None}
    for name, texts in (("source", source), ("target", target)):
        (folder / f"{name}.txt").write_text("\n".join(texts), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / f"{name}.txt"),
            model_prefix=str(folder / name),
            vocab_size=120,
            hard_vocab_limit=False,
            model_type="unigram",
            character_coverage=1.0,
            minloglevel=2,
        )
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.spm"))
        pieces |= dict.fromkeys(model.id_to_piece(index) for index in range(3, model.get_piece_size()))
    pieces |= dict.fromkeys([*(f">>{language}<<" for language in languages), "<pad>"])
    (folder / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(pieces)}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"source_lang": "en", "target_lang": "fr"}))
    made = network(len(pieces))
    made.save_pretrained(folder)
    return made
