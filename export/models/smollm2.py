"""A small language model, SmolLM2-135M-Instruct: token ids in, logits of the next token out, with its KV cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from export.models import llama

GRAPH, TOKENIZER, GENERATION = "model.onnx", "tokenizer.json", "generation.json"


@dataclass(frozen=True)
class Generation:
    """What a generator must know of a decoder beside its graph and its tokenizer; written as generation.json.

    A prompt's ids are `before`, then those of the text, then `after`. The text is encoded with
    `tokenizer.encode_special_tokens = True`, so that nobody ends his turn by writing the marker.
    `context` is the longest text in tokens, prompt and answer together. Generation ends at any of `eos_ids`.
    """

    eos_ids: Sequence[int]
    before: Sequence[int]
    after: Sequence[int]
    context: int
    vocabulary: int
    layers: int
    kv_heads: int
    head_size: int

    @staticmethod
    def of(shape: llama.Shape, *, eos_ids: Sequence[int], before: Sequence[int], after: Sequence[int]) -> Generation:
        """With the sizes of a decoder."""
        return Generation(
            eos_ids=eos_ids,
            before=before,
            after=after,
            context=shape.context,
            vocabulary=shape.vocabulary,
            layers=shape.layers,
            kv_heads=shape.kv_heads,
            head_size=shape.head_size,
        )

    def to_json(self) -> bytes:
        """The file's content."""
        return json.dumps(asdict(self)).encode() + b"\n"
