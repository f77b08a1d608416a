"""Token ids of one text in, logits out: the decoder that `fathom export smollm2` writes beside this file, uncached.

The graph is opened at the first request, since generation does not come this way.
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

PARAMETERS = {"threads"}


class TritonPythonModel:
    def initialize(self, args):
        model = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in model["parameters"].items()}
        if unknown := sorted(set(given) - PARAMETERS):
            raise pb_utils.TritonModelException(f"unknown parameters key '{unknown[0]}': choose {sorted(PARAMETERS)}")
        self.threads = int(given["threads"])
        self.path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = None

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        ids, at = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy().ravel() for name in ("input_ids", "logits_at")
        )
        try:
            logits = self._logits(ids, at)
        except ValueError as error:
            refusal = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=refusal)
        return pb_utils.InferenceResponse([pb_utils.Tensor("logits", logits)])

    def _logits(self, ids, at):
        if self.session is None:
            self._open()
        if not 1 <= len(ids) <= self.context:
            raise ValueError(f"input_ids has {len(ids)} tokens: send 1 to {self.context}")
        if not ((ids >= 0) & (ids < self.words)).all():
            raise ValueError(f"input_ids holds a token that is none of the model's: send 0 to {self.words - 1}")
        if not (len(at) and ((at >= 0) & (at < len(ids))).all()):
            raise ValueError(f"logits_at must hold positions of the text: send 0 to {len(ids) - 1}")
        whole = {
            "input_ids": ids[None],
            "seqlens_k": np.array([len(ids) - 1], np.int32),
            "total_sequence_length": np.array([len(ids)], np.int32),
            "logits_at": at,
        }
        return self.session.run(["logits"], whole | self.caches)[0][0]

    def _open(self):
        generation = json.loads(self.path.with_name("generation.json").read_text())
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        self.context, self.words = generation["context"], generation["vocabulary"]
        empty = np.zeros((1, generation["kv_heads"], 0, generation["head_size"]), np.float32)
        names = [each.name for each in session.get_inputs()]
        self.caches = {name: empty for name in names if name.startswith("past_key_values.")}
        self.session = session
