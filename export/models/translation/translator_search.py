"""The greedy search that every station of a translation model is judged by: transformers' own, and step by step.

Both take a decoder's first step, `decoder_input_ids` INT64 [N, 1], `states` FP32 [N, L, width] and `attention_mask`
INT64 [N, L], and answer with the whole translations: `tokens` INT64 [N, LONGEST], filled up with the end, and `score`
FP32 [N, 1], the mean log-probability of the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from export.models.translation.marian import END
from export.recipe.recipe import Array, Arrays, Predict

LONGEST = 32
"""How many tokens of a translation are judged, the end included."""


def generated(network: Any, tensors: Mapping[str, Any]) -> dict[str, Array]:
    """By transformers' own generate()."""
    from transformers.modeling_outputs import BaseModelOutput

    made = network.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=tensors["states"]),
        attention_mask=tensors["attention_mask"],
        decoder_input_ids=tensors["decoder_input_ids"],
        num_beams=1,
        do_sample=False,
        max_length=LONGEST + 1,
        forced_eos_token_id=END,
        bad_words_ids=[[network.config.pad_token_id]],
        output_logits=True,
        return_dict_in_generate=True,
    )
    found = made.sequences[:, 1:].numpy()
    log_probabilities = [
        step.log_softmax(-1).gather(1, made.sequences[:, place : place + 1])[:, 0].numpy()
        for place, step in enumerate(made.logits, start=1)
    ]
    return _kept(found, np.stack(log_probabilities, axis=1))


def greedy(predict: Predict, inputs: Arrays) -> dict[str, Array]:
    """By single steps of a decoder."""
    written = inputs["decoder_input_ids"]
    log_probabilities = []
    ended = np.zeros(len(written), bool)
    for _ in range(LONGEST):
        step = predict({**inputs, "decoder_input_ids": written})
        written = np.concatenate([written, step["ids"][:, :1]], axis=1)
        log_probabilities.append(step["log_probabilities"][:, 0])
        ended |= written[:, -1] == END
        if ended.all():
            break
    return _kept(written[:, 1:], np.stack(log_probabilities, axis=1))


def _kept(found: Array, log_probabilities: Array) -> dict[str, Array]:
    """Up to each row's end, which is written at the last place whatever was found there."""
    tokens = np.full((len(found), LONGEST), END, np.int64)
    after = np.cumsum(found == END, axis=1) - (found == END) > 0
    tokens[:, : found.shape[1]] = np.where(after, END, found)
    tokens[:, -1] = END
    counted = ~after
    counted[:, LONGEST - 1 :] = False
    score = (log_probabilities * counted).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
    return {"tokens": tokens, "score": score[:, None].astype(np.float32)}
