"""Train the small translator on phrases of num2words: `python -m export.models.translation.train`.

It writes `translator.safetensors` beside this file, the weights in FP16 with the vocabulary, and prints how many
phrases that were never trained on are translated exactly (five minutes on one core). The last weights are the ones
kept: nothing is chosen by the held-out figure.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from export.models.translation import phrases, translator_vocabulary
from export.models.translation.phrases import Pair, Phrase, held_out_pairs
from export.models.translation.translator import POSITIONS, WEIGHTS, bundled_config
from export.models.translation.translator_vocabulary import Vocabulary

SEED = 0
STEPS = 1500
BATCH = 128
PHRASES = 20_000
"""How many are trained on; each comes in several ways of writing it, in both languages."""

POOL = 16
"""Batches drawn together and sorted by length, so that little of each is padding."""

PEAK_LEARNING_RATE, WARMUP = 3e-3, 200
SHOWN_EVERY = 300
IGNORED = -100


def pieces(trained: Sequence[Phrase]) -> tuple[list[str], list[str]]:
    """The English ones and those of both translations."""
    written = [way for phrase in trained for way in phrase.written]
    english = translator_vocabulary.pieces(text.lower() for text, _ in written)
    french = translator_vocabulary.pieces(texts["fr"] for _, texts in written)
    german = translator_vocabulary.pieces((texts["de"] for _, texts in written), compound=True)
    return english, sorted({*french, *german})


def batches(vocabulary: Vocabulary, trained: Sequence[Phrase], seed: int) -> Iterator[tuple[Any, Any]]:
    """Token ids INT64 [BATCH, longest] of source and translation, both with the end behind them, without end."""
    import torch

    random = np.random.default_rng(seed)
    endless = (trained[index] for _ in count() for index in random.permutation(len(trained)))
    drawn = phrases.pairs(endless, random)
    pad = vocabulary.ids[translator_vocabulary.PAD]

    def padded(rows: Sequence[Sequence[int]], filler: int) -> Any:
        longest = max(map(len, rows))
        return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])

    while True:
        pairs = islice(drawn, BATCH * POOL)
        cut = [
            (vocabulary.encode(pair.text, pair.language), vocabulary.encode_target(pair.translation)) for pair in pairs
        ]
        cut.sort(key=lambda both: (len(both[0]) + len(both[1]), len(both[0])))
        for start in random.permutation(range(0, len(cut), BATCH)):
            sources, targets = zip(*cut[start : start + BATCH], strict=True)
            yield padded(sources, pad), padded(targets, IGNORED)


def exact(network: Any, vocabulary: Vocabulary, pairs: Sequence[Pair]) -> float:
    """The fraction of pairs that greedy search translates exactly."""
    import torch

    pad = vocabulary.ids[translator_vocabulary.PAD]
    order = sorted(pairs, key=lambda pair: len(pair.text))
    hits = 0
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        rows = [vocabulary.encode(pair.text, pair.language) for pair in chosen]
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
        made = network.generate(ids, attention_mask=(ids != pad).long(), max_length=POSITIONS, do_sample=False)
        hits += sum(
            vocabulary.decode(row[1:]) == pair.translation for row, pair in zip(made.tolist(), chosen, strict=True)
        )
    return hits / len(order)


def train(vocabulary: Vocabulary, trained: Sequence[Phrase], seed: int = SEED, steps: int = STEPS) -> Iterator[Any]:
    """The network, after every few hundred steps and at the end."""
    import torch
    from transformers import MarianMTModel

    torch.manual_seed(seed)
    network: Any = MarianMTModel(bundled_config(vocabulary)).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    pad, began = vocabulary.ids[translator_vocabulary.PAD], time.monotonic()
    for step, (sources, targets) in enumerate(islice(batches(vocabulary, trained, seed), steps), start=1):
        rate = PEAK_LEARNING_RATE * min(1.0, step / WARMUP) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = network(input_ids=sources, attention_mask=(sources != pad).long(), labels=targets).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % SHOWN_EVERY == 0 or step == steps:
            print(f"step {step}  loss {loss.item():.4f}  {time.monotonic() - began:.0f} s", flush=True)
            yield network.eval()
            network.train()


def save(network: Any, english: Sequence[str], translated: Sequence[str], path: Path) -> None:
    """Write what cannot be made anew: without the tables of positions, and the shared embedding once."""
    from safetensors.torch import save_file

    shared = {"lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"}
    kept = {
        name: tensor.half().contiguous()
        for name, tensor in network.state_dict().items()
        if name not in shared and "embed_positions" not in name
    }
    save_file(kept, path, metadata=translator_vocabulary.to_metadata(english, translated))


def main() -> None:
    """Train, write the weights, print the held-out figure of what was written."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=SEED, help="seed of weights and phrases")
    parser.add_argument("--steps", type=int, default=STEPS, help="batches to train on")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads to train with")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="safetensors file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    trained = list(islice(phrases.drawn(arguments.seed, held_out=False), PHRASES))
    english, translated = pieces(trained)
    vocabulary = translator_vocabulary.bundled(english, translated)
    for network in train(vocabulary, trained, arguments.seed, arguments.steps):
        save(network, english, translated, arguments.out)
        print(f"exact on 200 held-out phrases {exact(network, vocabulary, held_out_pairs(200)):.4f}", flush=True)
    figure = exact(network.half().float(), vocabulary, held_out_pairs(2000))
    print(
        f"exact on 2000 held-out phrases {figure:.4f}, {arguments.out.stat().st_size / 1e6:.2f} MB in {arguments.out}"
    )


if __name__ == "__main__":
    main()
