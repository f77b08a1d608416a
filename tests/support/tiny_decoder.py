"""A tiny random Llama decoder in the folder that the export of a real one makes, in a second and without torch.

Its tokenizer is trained on the sentences of the evaluation, so that its tokens are words and pieces of words of theirs;
its weights are random, so that its greedy texts are nonsense, and always the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from export.models.language import llama
from export.models.language.smollm2 import GENERATION, TOKENIZER, Generation
from export.models.text.minilm import SENTENCES

END, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
WORDS = 512
SHAPE = llama.Shape(
    layers=2,
    heads=4,
    kv_heads=2,
    head_size=16,
    hidden=64,
    feed_forward=96,
    vocabulary=WORDS,
    context=256,
    rope_theta=1e4,
    epsilon=1e-5,
)


def write_folder(folder: Path, *, shape: llama.Shape = SHAPE, seed: int = 0) -> Generation:
    """Write `model.onnx`, `tokenizer.json` and `generation.json` into the folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = random_weights(shape, seed)
    llama.write(shape, weights.__getitem__, folder / "model.onnx")
    tokenizer = tiny_tokenizer()
    (folder / TOKENIZER).write_text(tokenizer.to_str())
    generation = Generation.of(
        shape,
        eos_ids=[tokenizer.token_to_id(END_OF_TURN), tokenizer.token_to_id(END)],
        before=tokenizer.encode(f"{START_OF_TURN}user\n").ids,
        after=tokenizer.encode(f"{END_OF_TURN}\n{START_OF_TURN}assistant\n").ids,
    )
    (folder / GENERATION).write_bytes(generation.to_json())
    return generation


def random_weights(shape: llama.Shape = SHAPE, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Normally distributed weights by their names in transformers, large enough that the words' logits differ."""
    random = np.random.default_rng(seed)
    return {
        name: np.ones(size, np.float32) if len(size) == 1 else random.normal(0, 0.2, size).astype(np.float32)
        for name, size in shape.weights().items()
    }


def tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE of 512 tokens with an end of text and the markers of a chat; any UTF-8 text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS,
        special_tokens=[END, START_OF_TURN, END_OF_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES.read_text(encoding="utf-8").splitlines(), trainer)
    assert tokenizer.get_vocab_size() == WORDS
    return tokenizer
