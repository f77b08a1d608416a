"""The ONNX graph of voice_command: one chunk of every session in, what was heard out, and the states in between.

Three parts, written node by node: silero-vad's network says whether the chunk holds speech; log-mel frames and the
network of `voice_command_network` say what was said; a few comparisons decide when an utterance has an intent, and
when it is over. Inputs, for N sessions: `audio` INT16 [N, CHUNK], and the states that Triton keeps, zeros at first:

- `samples` FP32 [N, 320]: the end of the audio before
- `voice` FP32 [N, 256]: silero-vad's state
- `network` FP32 [N, WIDTH, CONTEXT]: what the network's convolutions look back on
- `turn` FP32 [N, 4]: whether 256 samples of `samples` have no window of silero-vad yet; chunks with speech in this
  utterance; chunks without speech since the last one with; the intent that was decided, 0 for none

Outputs, all [N, 1]: `intent` STRING, `score` FP32, `speech` FP32, `end_of_speech` BOOL; and each state as `NAME_after`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from export.graph import onnx_file
from export.models.voice import voice_command_network as network
from export.recipe.recipe import Array, Predict

CONTEXT, WINDOW = 64, 512
"""silero-vad takes 512 samples with the 64 before them. Of these a chunk has two and a half: two and three in turn."""

KEPT = CONTEXT + WINDOW // 2
VOICE = 128
"""Width of silero-vad's recurrent layer."""

STATES = {
    "samples": (KEPT,),
    "voice": (2 * VOICE,),
    "network": (network.WIDTH, network.CONTEXT),
    "turn": (4,),
}

SPEECH = 0.5
"""silero-vad's probability from which a chunk counts as speech."""

SPOKEN = 2
"""Chunks of speech that an utterance has at least: less is a click."""

SILENT = 5
"""Chunks without speech that end an utterance: 400 ms."""

SURE = 0.7
"""The probability from which an intent is decided."""


SILERO = {
    "stft": "model.stft.forward_basis_buffer",
    **{f"conv{at}.{kind}": f"model.encoder.{at}.reparam_conv.{kind}" for at in range(4) for kind in ("weight", "bias")},
    **{
        f"lstm.{side}_{kind}": f"model.decoder.rnn.{side}_{kind}"
        for side in ("weight", "bias")
        for kind in ("ih", "hh")
    },
    "final.weight": "model.decoder.decoder.2.weight",
    "final.bias": "model.decoder.decoder.2.bias",
}
"""silero-vad's weights by their names here: those in its published graph."""


def write(weights: Mapping[str, Array], silero: Path, path: Path) -> None:
    """Write the graph of the network's weights, by their names in torch, and those of silero-vad's published graph."""
    import onnx

    published = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(str(silero)).graph.initializer}
    model = _Graph(weights, {name: published[given] for name, given in SILERO.items()}).model()
    onnx_file.clean(model)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def follow(predict: Predict, audio: Array) -> dict[str, Array]:
    """The graph's answers to whole sequences, INT16 [N, chunks, CHUNK]: each output as [N, chunks, 1]."""
    states = {name: np.zeros((len(audio), *size), np.float32) for name, size in STATES.items()}
    answers = []
    for at in range(audio.shape[1]):
        answer = dict(predict({"audio": audio[:, at], **states}))
        states = {name: answer.pop(f"{name}_after") for name in STATES}
        answers.append(answer)
    return {name: np.stack([answer[name] for answer in answers], axis=1) for name in answers[0]}


class _Graph:
    """The nodes and weights, in order; each method adds what it names and returns its outputs."""

    def __init__(self, weights: Mapping[str, Array], silero: Mapping[str, Array]) -> None:
        self._weights, self._silero = weights, silero
        self._nodes: list[Any] = []
        self._tensors: dict[str, Any] = {}

    def model(self) -> Any:
        from onnx import TensorProto, helper

        scaled = self._op("Div", self._op("Cast", "audio", to=TensorProto.FLOAT), self._floats(32768))
        audio = self._op("Concat", "samples", scaled, axis=1)
        self._result("samples_after", self._part(audio, network.CHUNK, network.CHUNK + KEPT))
        odd, spoken, silent, decided = (self._part("turn", at, at + 1) for at in range(4))
        speech = self._result("speech", self._speech(audio, odd))
        probabilities, after = self._network(audio)
        is_speech = self._op("GreaterOrEqual", speech, self._floats(SPEECH))
        one = self._floats(1)
        spoken = self._op("Add", spoken, self._op("Cast", is_speech, to=TensorProto.FLOAT))
        silent = self._op("Where", is_speech, self._floats(0), self._op("Add", silent, one))
        enough = self._op("GreaterOrEqual", spoken, self._floats(SPOKEN))
        over = self._op("Equal", silent, self._floats(SILENT))
        end = self._result("end_of_speech", self._op("And", enough, over))

        some = self._part(probabilities, 1, len(network.classes()))
        score, best = self._several(2, "TopK", some, self._whole(1), axis=1)
        score = self._result("score", score)
        best = self._op("Add", self._op("Cast", best, to=TensorProto.FLOAT), one)
        other = self._floats(len(network.classes()) - 1)
        sure = self._op("And", self._op("GreaterOrEqual", score, self._floats(SURE)), self._op("Less", best, other))
        new = self._op("And", self._op("Equal", decided, self._floats(0)), self._op("And", sure, enough))
        decided = self._op("Where", new, best, decided)
        nothing = self._op("And", end, self._op("Equal", decided, self._floats(0)))
        answer = self._op("Cast", self._op("Where", nothing, other, decided), to=TensorProto.INT64)
        self._result("intent", self._op("Gather", self._stored("classes", np.array(network.classes(), object)), answer))

        # An utterance that is over, or a click, leaves nothing behind for the next.
        kept = self._op("Cast", self._op("Not", over), to=TensorProto.FLOAT)
        self._result("network_after", self._op("Mul", after, self._op("Unsqueeze", kept, self._whole(2))))
        even = self._op("Sub", one, odd)
        turn = [even, self._op("Mul", spoken, kept), silent, self._op("Mul", decided, kept)]
        self._result("turn_after", self._op("Concat", *turn, axis=1))

        floats = {name: (TensorProto.FLOAT, size) for name, size in STATES.items()}
        answers = {
            "intent": (TensorProto.STRING, (1,)),
            "score": (TensorProto.FLOAT, (1,)),
            "speech": (TensorProto.FLOAT, (1,)),
            "end_of_speech": (TensorProto.BOOL, (1,)),
            **{f"{name}_after": kind for name, kind in floats.items()},
        }
        takes = {"audio": (TensorProto.INT16, (network.CHUNK,)), **floats}
        inputs, outputs = (
            [helper.make_tensor_value_info(name, kind, ["sessions", *size]) for name, (kind, size) in tensors.items()]
            for tensors in (takes, answers)
        )
        graph = helper.make_graph(self._nodes, "voice_command", inputs, outputs, list(self._tensors.values()))
        opsets = [helper.make_opsetid("", onnx_file.OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=onnx_file.IR_VERSION)

    def _speech(self, audio: str, odd: str) -> str:
        """silero-vad's largest probability of the chunk's windows: two, or three where `odd` is 1."""
        from onnx import TensorProto

        length, half = CONTEXT + WINDOW, WINDOW // 2
        is_odd = self._op("Greater", odd, self._floats(0))
        windows = [
            self._op(
                "Where", is_odd, self._part(audio, at, at + length), self._part(audio, half + at, half + at + length)
            )
            for at in (0, WINDOW)
        ]
        windows.append(self._part(audio, 2 * WINDOW, 2 * WINDOW + length))
        rows = self._op("Concat", *(self._op("Unsqueeze", each, self._whole(1, 2)) for each in windows), axis=2)
        padded = self._op("Pad", rows, self._whole(0, 0, 0, 0, 0, 0, 0, CONTEXT), mode="reflect")
        waves = self._op("Conv", padded, self._flat_kernel("stft"), strides=[1, WINDOW // 4])
        bins = self._silero["stft"].shape[0] // 2
        hidden = self._op("Sqrt", self._power(waves, bins))
        for name, stride in (("conv0", 1), ("conv1", 2), ("conv2", 2), ("conv3", 1)):
            kernel, bias = self._flat_kernel(f"{name}.weight"), self._stored(name, self._silero[f"{name}.bias"])
            hidden = self._op("Conv", hidden, kernel, bias, strides=[1, stride], pads=[0, 1, 0, 1])
            hidden = self._op("Relu", hidden)
        steps = self._op("Transpose", self._op("Squeeze", hidden, self._whole(3)), perm=[2, 0, 1])
        counts = self._op("Cast", self._op("Squeeze", odd, self._whole(1)), to=TensorProto.INT32)
        counts = self._op("Add", counts, self._stored("two", np.array(2, np.int32)))
        recurred, *after = self._several(
            3,
            "LSTM",
            steps,
            *self._lstm(),
            counts,
            *(self._layer("voice", at, VOICE) for at in range(2)),
            hidden_size=VOICE,
        )
        self._result("voice_after", self._joined(after))
        last = self._op("Relu", self._op("Squeeze", recurred, self._whole(1)))
        final = self._stored("final", self._silero["final.weight"][0])
        logits = self._op(
            "Add", self._op("MatMul", last, final), self._stored("final_bias", self._silero["final.bias"])
        )
        by_window = self._op("Transpose", self._op("Squeeze", self._op("Sigmoid", logits), self._whole(2)), perm=[1, 0])
        valid = self._op("Concat", *[self._ones_like(odd)] * 2, odd, axis=1)
        return self._op("ReduceMax", self._op("Mul", by_window, valid), self._whole(1), keepdims=1)

    def _network(self, audio: str) -> tuple[str, str]:
        """The probabilities of the classes FP32 [N, classes], the mean of the chunk's steps; and the state after."""
        angles = (
            2 * np.pi / network.TRANSFORM * np.outer(np.arange(network.TRANSFORM // 2 + 1), np.arange(network.FRAME))
        )
        basis = np.concatenate([np.cos(angles), -np.sin(angles)]) * network.window()
        kernel = self._stored("fourier", basis[:, None].astype(np.float32))
        recent = self._part(audio, KEPT - network.TAIL, KEPT + network.CHUNK)
        waves = self._op("Conv", self._op("Unsqueeze", recent, self._whole(1)), kernel, strides=[network.HOP])
        power = self._op("Transpose", self._power(waves, network.TRANSFORM // 2 + 1), perm=[0, 2, 1])
        bands = self._op("MatMul", power, self._stored("mel", network.mel_weights()))
        frames = self._op("Log", self._op("Add", bands, self._floats(network.FLOOR)))
        mean, deviation = (self._stored(name, self._weights[name]) for name in ("mean", "deviation"))
        scaled = self._op("Div", self._op("Sub", frames, mean), deviation)
        steps = self._op("Reshape", scaled, self._whole(0, -1, network.STEP // network.HOP * network.BANDS))
        hidden = self._op("Transpose", steps, perm=[0, 2, 1])
        hidden = self._op("Relu", self._convolution(hidden, "enter", 0, dilations=[1]))
        after, at = [], 0
        for layer, dilation in enumerate(network.DILATIONS):
            before = self._part("network", at, at + 2 * dilation, axis=2)
            at += 2 * dilation
            seen = self._op("Concat", before, hidden, axis=2)
            steps_per_chunk = network.CHUNK // network.STEP
            after.append(self._part(seen, steps_per_chunk, steps_per_chunk + 2 * dilation, axis=2))
            found = self._convolution(seen, f"look_back.{layer}", 1 + layer, dilations=[dilation])
            hidden = self._op("Add", hidden, self._op("Relu", found))
        last = self._stored("leave.weight", np.ascontiguousarray(self._weights["leave.weight"].T))
        logits = self._op("MatMul", self._op("Transpose", hidden, perm=[0, 2, 1]), last)
        logits = self._op("Add", logits, self._stored("leave.bias", self._weights["leave.bias"]))
        by_step = self._op("Softmax", logits, axis=2)
        return self._op("ReduceMean", by_step, self._whole(1), keepdims=0), self._op("Concat", *after, axis=2)

    def _convolution(self, hidden: str, name: str, normalized: int, **attributes: Any) -> str:
        """A convolution and the batch normalisation behind it, whose figures no longer change, as one."""
        weights = self._weights
        moved, spread, gain, bias = (
            weights[f"normalize.{normalized}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")
        )
        scale = gain / np.sqrt(spread + 1e-5)
        kernel = self._stored(f"{name}.weight", weights[f"{name}.weight"] * scale[:, None, None])
        offset = self._stored(f"{name}.bias", (weights[f"{name}.bias"] - moved) * scale + bias)
        return self._op("Conv", hidden, kernel, offset, **attributes)

    def _power(self, waves: str, bins: int) -> str:
        """Squares of the real parts plus those of the imaginary ones, which are channels one behind the other."""
        squares = self._op("Mul", waves, waves)
        return self._op("Add", *(self._part(squares, at, at + bins) for at in (0, bins)))

    def _lstm(self) -> tuple[str, str, str]:
        """torch's weights of silero-vad's layer, their gates in ONNX's order: input, output, forget, cell."""

        def ordered(name: str) -> Array:
            i, f, c, o = np.split(self._silero[f"lstm.{name}"], 4)
            return np.concatenate([i, o, f, c])

        biases = np.concatenate([ordered("bias_ih"), ordered("bias_hh")])
        arrays = {"input": ordered("weight_ih"), "recurrent": ordered("weight_hh"), "bias": biases}
        w, r, b = (self._stored(f"lstm.{name}", array[None]) for name, array in arrays.items())
        return w, r, b

    def _layer(self, state: str, at: int, width: int) -> str:
        """One layer's part of a state, as the recurrent operators take it: [1, N, width]."""
        return self._op("Unsqueeze", self._part(state, at * width, (at + 1) * width), self._whole(0))

    def _joined(self, layers: list[str]) -> str:
        return self._op("Concat", *(self._op("Squeeze", each, self._whole(0)) for each in layers), axis=1)

    def _flat_kernel(self, name: str) -> str:
        """silero-vad's kernel over time, for windows that lie one above the other: [out, in, 1, time]."""
        return self._stored(name, self._silero[name][:, :, None])

    def _ones_like(self, column: str) -> str:
        return self._op("Add", self._op("Mul", column, self._floats(0)), self._floats(1))

    def _part(self, value: str, start: int, stop: int, axis: int = 1) -> str:
        return self._op("Slice", value, self._whole(start), self._whole(stop), self._whole(axis))

    def _result(self, name: str, value: str) -> str:
        from onnx import helper

        self._nodes.append(helper.make_node("Identity", [value], [name], name=name))
        return name

    def _op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node's output."""
        return self._several(1, kind, *inputs, **attributes)[0]

    def _several(self, outputs: int, kind: str, *inputs: str, **attributes: Any) -> list[str]:
        """A node's outputs."""
        from onnx import helper

        title = f"{kind}_{len(self._nodes)}"
        names = [title, *(f"{title}_{at}" for at in range(1, outputs))]
        self._nodes.append(helper.make_node(kind, inputs, names, name=title, **attributes))
        return names

    def _floats(self, value: float) -> str:
        return self._stored(f"float_{value:g}", np.array([[value]], np.float32))

    def _whole(self, *values: int) -> str:
        return self._stored(f"int_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def _stored(self, name: str, values: Array) -> str:
        """A constant of the graph, stored once for each name."""
        from onnx import numpy_helper

        if name not in self._tensors:
            self._tensors[name] = numpy_helper.from_array(values, name)
        return name
