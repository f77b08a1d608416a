"""A Marian encoder-decoder of transformers as two ONNX graphs, written node by node.

Encoder, for N texts of L tokens: `input_ids`, `attention_mask` INT64 [N, L] -> `states` FP32 [N, L * width]. They lie
flat, so that the encoder's config.pbtxt fits a model of any width.
Decoder, one step: `decoder_input_ids` INT64 [N, T], the tokens so far, `states` FP32 [N, L, width] and
`attention_mask` INT64 [N, L] -> `ids` INT64 and `log_probabilities` FP32 [N, 8], the likeliest next tokens, best first.
It reads the tokens so far anew at each step: keys and values would travel with each request
(docs/systems/translator.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.errors import RecipeError
from export.graph import onnx_file
from export.recipe.recipe import Array

CANDIDATES = 8
"""The likeliest next tokens that a step answers with: a beam search needs two for each of its beams."""

END = 0
"""The token behind every text and translation."""

_MASKED = -1e9


@dataclass(frozen=True)
class Shape:
    """A model's sizes: `positions` is its longest text in tokens, source or translation."""

    width: int
    heads: tuple[int, int]
    layers: tuple[int, int]
    vocabulary: int
    positions: int
    scale: float
    activation: str
    pad: int

    @staticmethod
    def of(config: Any) -> Shape:
        """The sizes of a transformers MarianConfig. Raises RecipeError for a model that is not written here."""
        for what, wanted in (
            ("model_type", ("marian",)),
            ("activation_function", ("swish", "silu", "relu")),
            ("share_encoder_decoder_embeddings", (True,)),
            ("tie_word_embeddings", (True,)),
            ("eos_token_id", (END,)),
        ):
            found = getattr(config, what, None)
            if found not in wanted:
                raise RecipeError(
                    f"{what} of the model is {found!r}: only models with {wanted[0]!r} are exported",
                    field=what,
                    found=found,
                    expected=wanted[0],
                )
        return Shape(
            width=config.d_model,
            heads=(config.encoder_attention_heads, config.decoder_attention_heads),
            layers=(config.encoder_layers, config.decoder_layers),
            vocabulary=config.vocab_size,
            positions=config.max_position_embeddings,
            scale=float(np.sqrt(config.d_model)) if config.scale_embedding else 1.0,
            activation=config.activation_function,
            pad=config.pad_token_id,
        )


Weight = Callable[[str], Array]
"""Gives an FP32 array by its name in transformers, [outputs, inputs]."""


def encoder(shape: Shape, weight: Weight) -> Any:
    """The encoder as a ModelProto."""
    graph = _Graph(shape, weight)
    hidden = graph.embedded("input_ids", "model.encoder")
    seen = graph.mask_bias()
    for layer in range(shape.layers[0]):
        at = f"model.encoder.layers.{layer}"
        hidden = graph.attended(hidden, hidden, seen, f"{at}.self_attn", shape.heads[0])
        hidden = graph.fed_forward(hidden, at)
    graph.node("Reshape", [hidden, graph.constant("flat", np.array([0, -1], np.int64))], "states")
    tokens = ["batch", "tokens"]
    return graph.model(
        {"input_ids": (np.int64, tokens), "attention_mask": (np.int64, tokens)},
        {"states": (np.float32, ["batch", "values"])},
    )


def decoder(shape: Shape, weight: Weight) -> Any:
    """One step of the decoder as a ModelProto."""
    graph = _Graph(shape, weight)
    hidden = graph.embedded("decoder_input_ids", "model.decoder")
    before, seen = graph.causal_bias("decoder_input_ids"), graph.mask_bias()
    for layer in range(shape.layers[1]):
        at = f"model.decoder.layers.{layer}"
        hidden = graph.attended(hidden, hidden, before, f"{at}.self_attn", shape.heads[1])
        hidden = graph.attended(hidden, "states", seen, f"{at}.encoder_attn", shape.heads[1])
        hidden = graph.fed_forward(hidden, at)
    graph.candidates(hidden)
    return graph.model(
        {
            "decoder_input_ids": (np.int64, ["batch", "written"]),
            "states": (np.float32, ["batch", "tokens", shape.width]),
            "attention_mask": (np.int64, ["batch", "tokens"]),
        },
        {"ids": (np.int64, ["batch", CANDIDATES]), "log_probabilities": (np.float32, ["batch", CANDIDATES])},
    )


class _Graph:
    """The nodes and weights of one graph, in order; each method adds what it names and returns its output."""

    def __init__(self, shape: Shape, weight: Weight) -> None:
        self._shape, self._weight = shape, weight
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def model(self, inputs: dict[str, tuple[Any, Sequence[Any]]], outputs: dict[str, tuple[Any, Sequence[Any]]]) -> Any:
        from onnx import checker, helper

        described = [
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), dims)
                for name, (kind, dims) in tensors.items()
            ]
            for tensors in (inputs, outputs)
        ]
        graph = helper.make_graph(self._nodes, "marian", *described, list(self._constants.values()))
        opsets = [helper.make_opsetid("", onnx_file.OPSET)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=onnx_file.IR_VERSION)
        checker.check_model(made)
        return made

    def embedded(self, ids: str, part: str) -> str:
        """Tokens with their positions, FP32 [N, tokens, width]."""
        looked_up = self.node("Gather", [self._table(), ids], f"{part}.embedding")
        scaled = self.node(
            "Mul", [looked_up, self.constant("scale", np.array(self._shape.scale, np.float32))], f"{part}.scaled"
        )
        length = self.node("Shape", [ids], f"{part}.length", start=1, end=2)
        table = self.constant(f"{part}.positions", self._weight(f"{part}.embed_positions.weight"))
        places = self.node("Slice", [table, self._int("zero", 0), length, self._int("zero", 0)], f"{part}.places")
        return self.node("Add", [scaled, places], f"{part}.embedded")

    def mask_bias(self) -> str:
        """0 for a token of the source and a billion less for padding, FP32 [N, 1, 1, L]."""
        mask = self.node("Cast", ["attention_mask"], "mask", to=1)
        padding = self.node("Sub", [self.constant("one", np.array(1, np.float32)), mask], "padding")
        bias = self.node("Mul", [padding, self.constant("masked", np.array(_MASKED, np.float32))], "padding_bias")
        return self.node("Unsqueeze", [bias, self.constant("middle", np.array([1, 2], np.int64))], "mask_bias")

    def causal_bias(self, ids: str) -> str:
        """0 up to a token's own place and a billion less behind it, FP32 [T, T]."""
        from onnx import helper

        length = self.node("Shape", [ids], "written", start=1, end=2)
        square = self.node("Concat", [length, length], "square", axis=0)
        value = helper.make_tensor("value", 1, [1], [_MASKED])
        full = self.node("ConstantOfShape", [square], "nowhere", value=value)
        return self.node("Trilu", [full, self.constant("above", np.array(1, np.int64))], "causal_bias", upper=1)

    def attended(self, hidden: str, memory: str, bias: str, name: str, heads: int) -> str:
        """Attention of `hidden` to `memory`, added and normed."""
        size = self._shape.width // heads
        split = self.constant(f"heads_{heads}", np.array([0, 0, heads, size], np.int64))

        def parts(of: str, projection: str, order: Sequence[int]) -> str:
            rows = self.node("Reshape", [self._product(of, f"{name}.{projection}"), split], f"{name}.{projection}.rows")
            return self.node("Transpose", [rows], f"{name}.{projection}.heads", perm=order)

        query = parts(hidden, "q_proj", (0, 2, 1, 3))
        key, value = parts(memory, "k_proj", (0, 2, 3, 1)), parts(memory, "v_proj", (0, 2, 1, 3))
        root = self.constant(f"root_{size}", np.array(size**-0.5, np.float32))
        scaled = self.node("Mul", [self.node("MatMul", [query, key], f"{name}.scores"), root], f"{name}.scaled")
        shares = self.node("Softmax", [self.node("Add", [scaled, bias], f"{name}.biased")], f"{name}.shares", axis=-1)
        mixed = self.node(
            "Transpose", [self.node("MatMul", [shares, value], f"{name}.mixed")], f"{name}.back", perm=(0, 2, 1, 3)
        )
        joined = self.node(
            "Reshape", [mixed, self.constant("joined", np.array([0, 0, -1], np.int64))], f"{name}.joined"
        )
        return self._normed(hidden, self._product(joined, f"{name}.out_proj"), f"{name}_layer_norm")

    def fed_forward(self, hidden: str, name: str) -> str:
        """The two products of a layer, added and normed."""
        inner = self._product(hidden, f"{name}.fc1")
        if self._shape.activation == "relu":
            active = self.node("Relu", [inner], f"{name}.active")
        else:
            active = self.node("Mul", [inner, self.node("Sigmoid", [inner], f"{name}.gate")], f"{name}.active")
        return self._normed(hidden, self._product(active, f"{name}.fc2"), f"{name}.final_layer_norm")

    def candidates(self, hidden: str) -> None:
        """The likeliest tokens behind the last one, padding never among them."""
        last = self.node("Gather", [hidden, self.constant("last", np.array(-1, np.int64))], "last_hidden", axis=1)
        bias = self.constant("final_logits_bias", self._weight("final_logits_bias")[0])
        logits = self.node("Gemm", [last, self._table(), bias], "logits", transB=1)
        spread = self.node("LogSoftmax", [logits], "log_softmax", axis=-1)
        never = np.zeros(self._shape.vocabulary, np.float32)
        never[self._shape.pad] = _MASKED
        allowed = self.node("Add", [spread, self.constant("never_padding", never)], "allowed")
        self.node("TopK", [allowed, self._int("candidates", CANDIDATES)], "log_probabilities", more=["ids"], axis=-1)

    def node(self, kind: str, inputs: Sequence[str], name: str, more: Sequence[str] = (), **attributes: Any) -> str:
        from onnx import helper

        self._nodes.append(helper.make_node(kind, inputs, [name, *more], name=name, **attributes))
        return name

    def constant(self, name: str, values: Array) -> str:
        """A constant of the graph, stored once."""
        from onnx import numpy_helper

        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
        return name

    def _int(self, name: str, value: int) -> str:
        return self.constant(name, np.array([value], np.int64))

    def _table(self) -> str:
        return self.constant("model.shared.weight", self._weight("model.shared.weight"))

    def _product(self, hidden: str, name: str) -> str:
        product = self.node(
            "MatMul", [hidden, self.constant(f"{name}.weight", self._weight(f"{name}.weight").T)], f"{name}.product"
        )
        return self.node("Add", [product, self.constant(f"{name}.bias", self._weight(f"{name}.bias"))], name)

    def _normed(self, hidden: str, added: str, name: str) -> str:
        both = self.node("Add", [hidden, added], f"{name}.sum")
        weights = [self.constant(f"{name}.{part}", self._weight(f"{name}.{part}")) for part in ("weight", "bias")]
        return self.node("LayerNormalization", [both, *weights], name, axis=-1, epsilon=1e-5)
