"""A Llama decoder as an ONNX graph with its KV cache as inputs and outputs.

The graph is written node by node, not traced: one decoder serves a whole prompt, a piece of one, and single steps of
rows of different lengths, and torch has no operator for the cache. Attention is com.microsoft's GroupQueryAttention. It
reads of each row's cache only what is used, and writes in place where past and present are bound to the same memory.

Inputs, for B rows of T new tokens: `input_ids` INT64 [B, T]; `seqlens_k` INT32 [B], each row's length after this call
less 1; `total_sequence_length` INT32 [1], the longest row's length after this call; `logits_at` INT64 [N], which of the
T positions get logits; `past_key_values.<layer>.key` and `.value` FP32 [B, heads, S, size].
Outputs: `logits` FP32 [B, N, words]; `present.<layer>.key` and `.value` FP32 [B, heads, S', size], where S' is S or the
longest row's length, whichever is larger.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import RecipeError
from export.graph import onnx_file, onnx_stream
from export.graph.signature import TensorSpec
from export.recipe.recipe import Array

WEIGHTS = "weights.data"
MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes: `heads` of queries share `kv_heads` of keys and values; `context` is its longest text in
    tokens."""

    layers: int
    heads: int
    kv_heads: int
    head_size: int
    hidden: int
    feed_forward: int
    vocabulary: int
    context: int
    rope_theta: float
    epsilon: float

    @staticmethod
    def of(config: Any) -> Shape:
        """The sizes of a transformers LlamaConfig. Raises RecipeError for a decoder that is not written here."""
        rope = dict(getattr(config, "rope_parameters", None) or {})
        for what, found, wanted in (
            ("model_type", config.model_type, "llama"),
            ("hidden_act", config.hidden_act, "silu"),
            ("rope_type", rope.get("rope_type", "default"), "default"),
            ("attention_bias", bool(config.attention_bias), False),
            ("mlp_bias", bool(config.mlp_bias), False),
            ("tie_word_embeddings", bool(config.tie_word_embeddings), True),
        ):
            if found != wanted:
                raise RecipeError(
                    f"{what} of the model is {found!r}: only decoders with {wanted!r} are exported",
                    field=what,
                    found=found,
                    expected=wanted,
                )
        return Shape(
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_size=config.head_dim,
            hidden=config.hidden_size,
            feed_forward=config.intermediate_size,
            vocabulary=config.vocab_size,
            context=config.max_position_embeddings,
            rope_theta=float(rope.get("rope_theta", 10000.0)),
            epsilon=config.rms_norm_eps,
        )

    def weights(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight that the graph has, by its name in transformers."""
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        layer: dict[str, tuple[int, ...]] = {
            "input_layernorm": (self.hidden,),
            "self_attn.q_proj": (queries, self.hidden),
            "self_attn.k_proj": (keys, self.hidden),
            "self_attn.v_proj": (keys, self.hidden),
            "self_attn.o_proj": (self.hidden, queries),
            "post_attention_layernorm": (self.hidden,),
            "mlp.gate_proj": (self.feed_forward, self.hidden),
            "mlp.up_proj": (self.feed_forward, self.hidden),
            "mlp.down_proj": (self.hidden, self.feed_forward),
        }
        return {
            "model.embed_tokens.weight": (self.vocabulary, self.hidden),
            "model.norm.weight": (self.hidden,),
            **{
                f"model.layers.{index}.{name}.weight": size
                for index in range(self.layers)
                for name, size in layer.items()
            },
        }

    def caches(self) -> Iterator[str]:
        """The names of the caches behind `past_key_values.` and `present.`, in the graph's order."""
        for layer in range(self.layers):
            yield from (f"{layer}.key", f"{layer}.value")


def write(shape: Shape, weight: Callable[[str], Array], path: Path) -> None:
    """Write the decoder as one file. `weight` gives an FP32 array by its name in transformers, [outputs, inputs].

    Weights are read one at a time, and never held together.
    """
    room = path.with_name(f"{path.name}.parts")
    room.mkdir()
    with (room / WEIGHTS).open("wb") as file:
        graph = _Graph(shape, weight, file)
        model = graph.model()
    onnx_file.finish(model, room, path)
    shutil.rmtree(room)


def whole_text(inputs: Sequence[TensorSpec], input_ids: Array, logits_at: Array) -> dict[str, Array]:
    """What a decoder of these inputs takes to read one text, INT64 [T], from its beginning: caches without a token."""
    sizes = {spec.name: (1, *(max(size, 0) for size in spec.dims[1:])) for spec in inputs if len(spec.dims) == 4}
    return {
        "input_ids": input_ids[None],
        "seqlens_k": np.array([len(input_ids) - 1], np.int32),
        "total_sequence_length": np.array([len(input_ids)], np.int32),
        "logits_at": logits_at,
        **{name: np.zeros(size, np.float32) for name, size in sizes.items()},
    }


class _Graph:
    """The nodes and weights of one decoder, in order; each method adds what it names and returns its output."""

    def __init__(self, shape: Shape, weight: Callable[[str], Array], file: Any) -> None:
        self._shape, self._weight, self._file = shape, weight, file
        self._nodes: list[Any] = []
        self._tensors: list[Any] = []

    def model(self) -> Any:
        from onnx import TensorProto, helper

        shape = self._shape
        cosines, sines = self._rotations()
        table = self._stored("model.embed_tokens.weight", self._weight("model.embed_tokens.weight"))
        hidden = self._node("Gather", [table, "input_ids"], "embedding")
        normed = self._first_norm(hidden, self._stored_as_is("model.layers.0.input_layernorm.weight"))
        for layer in range(shape.layers):
            at = f"model.layers.{layer}"
            attended = self._attention(normed, layer, cosines, sines)
            normed, hidden = self._add_and_norm(hidden, attended, f"{at}.post_attention_layernorm.weight")
            gate = self._product(normed, f"{at}.mlp.gate_proj")
            up = self._product(normed, f"{at}.mlp.up_proj")
            sigmoid = self._node("Sigmoid", [gate], f"{at}.mlp.sigmoid")
            silu = self._node("Mul", [gate, sigmoid], f"{at}.mlp.silu")
            down = self._product(self._node("Mul", [silu, up], f"{at}.mlp.gated"), f"{at}.mlp.down_proj")
            last = layer == shape.layers - 1
            norm = "model.norm.weight" if last else f"model.layers.{layer + 1}.input_layernorm.weight"
            normed, hidden = self._add_and_norm(hidden, down, norm)
        self._logits(normed, table)
        cache = ["batch", shape.kv_heads, "past", shape.head_size]
        grown = ["batch", shape.kv_heads, "present", shape.head_size]
        graph = helper.make_graph(
            self._nodes,
            "decoder",
            [
                helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"]),
                helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, ["batch"]),
                helper.make_tensor_value_info("total_sequence_length", TensorProto.INT32, [1]),
                helper.make_tensor_value_info("logits_at", TensorProto.INT64, ["positions"]),
                *(
                    helper.make_tensor_value_info(f"past_key_values.{name}", TensorProto.FLOAT, cache)
                    for name in shape.caches()
                ),
            ],
            [
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "positions", shape.vocabulary]),
                *(
                    helper.make_tensor_value_info(f"present.{name}", TensorProto.FLOAT, grown)
                    for name in shape.caches()
                ),
            ],
            self._tensors,
        )
        opsets = [helper.make_opsetid("", onnx_file.OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=onnx_file.IR_VERSION)

    def _attention(self, normed: str, layer: int, cosines: str, sines: str) -> str:
        shape, at = self._shape, f"model.layers.{layer}.self_attn"
        query, key, value = (self._product(normed, f"{at}.{name}_proj") for name in "qkv")
        past = [f"past_key_values.{layer}.{name}" for name in ("key", "value")]
        present = [f"present.{layer}.{name}" for name in ("key", "value")]
        lengths = ["seqlens_k", "total_sequence_length"]
        attended = self._node(
            "GroupQueryAttention",
            [query, key, value, *past, *lengths, cosines, sines],
            f"{at}.attention",
            more=present,
            domain=MICROSOFT,
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            do_rotary=1,
            rotary_interleaved=0,
            scale=shape.head_size**-0.5,
        )
        return self._product(attended, f"{at}.o_proj")

    def _first_norm(self, hidden: str, scale: str) -> str:
        """RMS normalisation in ONNX's own operators, which ONNX Runtime fuses."""
        two = self._stored("two", np.array(2, np.float32))
        epsilon = self._stored("epsilon", np.array(self._shape.epsilon, np.float32))
        last = self._stored("last_axis", np.array([-1], np.int64))
        mean = self._node("ReduceMean", [self._node("Pow", [hidden, two], "squares"), last], "mean_square", keepdims=1)
        root = self._node("Sqrt", [self._node("Add", [mean, epsilon], "mean_square_epsilon")], "root_mean_square")
        return self._node("Mul", [self._node("Div", [hidden, root], "unscaled"), scale], "normed")

    def _add_and_norm(self, hidden: str, added: str, name: str) -> tuple[str, str]:
        """The sum of both, normalised, and as it is."""
        scale, sum_of_both = self._stored_as_is(name), f"{name}.sum"
        normed = self._node(
            "SkipSimplifiedLayerNormalization",
            [hidden, added, scale],
            f"{name}.normed",
            more=["", "", sum_of_both],
            domain=MICROSOFT,
            epsilon=self._shape.epsilon,
        )
        return normed, sum_of_both

    def _logits(self, normed: str, table: str) -> None:
        """The products with the table of embeddings, at the positions that were requested."""
        at = self._node("Gather", [normed, "logits_at"], "hidden_at", axis=1)
        flat = self._node("Reshape", [at, self._stored("flat", np.array([-1, self._shape.hidden], np.int64))], "rows")
        scores = self._node("Gemm", [flat, table], "lm_head", transB=1)
        batch = self._node("Shape", [at], "batch_and_positions", start=0, end=2)
        words = self._stored("words", np.array([self._shape.vocabulary], np.int64))
        self._node("Reshape", [scores, self._node("Concat", [batch, words], "logits_shape", axis=0)], "logits")

    def _product(self, hidden: str, name: str) -> str:
        matrix = np.ascontiguousarray(self._weight(f"{name}.weight").T)
        return self._node("MatMul", [hidden, self._stored(f"{name}.weight", matrix)], name)

    def _rotations(self) -> tuple[str, str]:
        """Cosines and sines of every position, FP32 [context, head_size / 2]."""
        half = self._shape.head_size // 2
        frequencies = self._shape.rope_theta ** (-np.arange(half, dtype=np.float64) / half)
        angles = np.arange(self._shape.context)[:, None] * frequencies
        return (
            self._stored("cosines", np.cos(angles).astype(np.float32)),
            self._stored("sines", np.sin(angles).astype(np.float32)),
        )

    def _node(
        self, kind: str, inputs: Sequence[str], name: str, more: Sequence[str] = (), domain: str = "", **attributes: Any
    ) -> str:
        from onnx import helper

        self._nodes.append(helper.make_node(kind, inputs, [name, *more], name=name, domain=domain, **attributes))
        return name

    def _stored_as_is(self, name: str) -> str:
        return self._stored(name, self._weight(name))

    def _stored(self, name: str, values: Array) -> str:
        """A constant of the graph; a large one lies in the file of weights."""
        from onnx import TensorProto, helper, numpy_helper

        if values.nbytes <= onnx_stream.LARGE:
            self._tensors.append(numpy_helper.from_array(values, name))
            return name
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor = TensorProto(name=name, data_type=kind, dims=values.shape)
        onnx_stream.refer(tensor, WEIGHTS, self._file.tell(), values.nbytes)
        values.tofile(self._file)
        self._tensors.append(tensor)
        return name
