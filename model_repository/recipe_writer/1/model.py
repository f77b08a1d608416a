"""A prompt in, its answer out in parts, one a token: the language model of a sibling folder, many requests at a time.

`execute` checks a request and queues it. The scheduler's thread answers it through its response sender.
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from decoder import Decoder
from generation import Generation
from pieces import Pieces, token_bytes
from sampling import Sampler
from scheduler import FullError, Scheduler, StoppedError
from tokenizers import Tokenizer

PARAMETERS = {"decoder": "", "slots": 1, "context": 2, "prefill_chunk": 1, "waiting": 1, "threads": 0}
"""The keys of config.pbtxt, with the least value of those that are whole numbers."""
METRICS = {
    "slots_in_use": ("generation_slots_in_use", "GAUGE", "Requests that have a slot of the cache"),
    "waiting": ("generation_waiting", "GAUGE", "Requests that wait for a slot"),
    "steps": ("generation_steps_total", "COUNTER", "Decoding steps"),
    "step_rows": ("generation_step_rows_total", "COUNTER", "Requests in the decoding steps, added up"),
    "tokens": ("generation_tokens_total", "COUNTER", "Tokens generated"),
    "cancelled": ("generation_cancelled_total", "COUNTER", "Requests that were cancelled"),
}


class RefusedError(Exception):
    """A request that cannot be answered as it is."""


class TritonPythonModel:
    def initialize(self, args):
        self._scheduler = None
        try:
            given = _parameters(json.loads(args["model_config"])["parameters"])
            self._load(args["model_name"], _newest(Path(args["model_repository"]).parent / given["decoder"]), given)
        except (ValueError, MemoryError) as error:
            raise pb_utils.TritonModelException(str(error)) from error

    def _load(self, name, folder, given):
        about = json.loads((folder / "generation.json").read_text())
        if given["context"] > about["context"]:
            raise ValueError(f"context is {given['context']}, and '{folder}' reads {about['context']} tokens at most")
        self._before, self._after = about["before"], about["after"]
        self._room = given["context"] - len(self._before) - len(self._after)
        if self._room < 1:
            raise ValueError(f"context is {given['context']}, and the chat template takes all of it: give more")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.encode_special_tokens = True  # nobody ends a turn by writing its marker
        try:
            self._table = token_bytes(self._tokenizer)
        except ValueError as error:
            raise ValueError(f"'{folder / 'tokenizer.json'}' cannot be used: {error}") from error
        self._longest_token = max(len(text) for text in self._table)
        sizes = {key: given[key] for key in ("slots", "context", "threads")}
        decoder = Decoder(folder / "model.onnx", prefix=self._before, **sizes)
        pb_utils.Logger.log_info(
            f"'{name}' keeps the keys and values of {decoder.slots} generations of {decoder.context} tokens in "
            f"{decoder.cache_bytes / 1e6:,.0f} MB; {given['waiting']} more may wait"
        )
        self._scheduler = Scheduler(
            decoder,
            eos=about["eos_ids"],
            waiting=given["waiting"],
            prefill_chunk=given["prefill_chunk"],
            publish=Publisher(name),
        )

    def is_ready(self):
        """Releases of 2026 ask for this when they are asked whether the model is ready; older ones never call it."""
        return self._scheduler is not None and self._scheduler.is_alive()

    def execute(self, requests):
        for request in requests:
            reply = Reply(request.get_response_sender())
            try:
                self._scheduler.submit(self._read(request, reply))
            except RefusedError as error:
                reply.fail(f"INVALID_ARG: {error}", pb_utils.TritonError.INVALID_ARG)
            except FullError as error:
                reply.fail(f"UNAVAILABLE: Exceeds maximum queue size: {error}", pb_utils.TritonError.UNAVAILABLE)
            except StoppedError as error:
                reply.fail(f"UNAVAILABLE: {error}", pb_utils.TritonError.UNAVAILABLE)

    def finalize(self):
        if self._scheduler:
            self._scheduler.close()

    def _read(self, request, reply):
        if unknown := sorted(json.loads(request.parameters() or "{}")):
            raise RefusedError(
                f"unknown request parameter '{unknown[0]}': max_tokens, stop, temperature, top_p and seed are inputs"
            )
        max_tokens = _value(request, "max_tokens", 128)
        if max_tokens < 1:
            raise RefusedError(f"max_tokens is {max_tokens}: ask for 1 at least")
        temperature = _value(request, "temperature", 0.0)
        if not 0 <= temperature < np.inf:
            raise RefusedError(f"temperature is {temperature:g}: send 0 (the likeliest token always) or more")
        top_p = _value(request, "top_p", 1.0)
        if not 0 < top_p <= 1:
            raise RefusedError(f"top_p is {top_p:g}: send more than 0, and 1 at most")
        seed = _value(request, "seed", None)
        stop = [_text(f"stop word {n}", word) for n, word in enumerate(_values(request, "stop"))]
        if "" in stop:
            raise RefusedError("a stop word is empty: leave it out")
        sampler = Sampler(temperature, top_p, None if seed is None else seed % 2**64)
        return Generation(self._prompt(request), max_tokens, sampler, Pieces(self._table, stop), reply)

    def _prompt(self, request):
        raw = b"".join(_values(request, "prompt"))  # Triton lets a request pass that lacks it
        text = _text("prompt", raw)
        if not text.strip():
            raise RefusedError("prompt is empty: send at least one word")
        if len(raw) > self._room * self._longest_token:  # counting the tokens of a long text takes long
            raise RefusedError(
                f"prompt has {len(raw):,} bytes, which are more than {self._room} tokens: send a shorter one"
            )
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if len(ids) > self._room:
            raise RefusedError(f"prompt has {len(ids)} tokens, and {self._room} fit: send a shorter one")
        return np.array([*self._before, *ids, *self._after], np.int64)


class Reply:
    """The parts of one answer, through Triton's response sender."""

    def __init__(self, sender):
        self._sender = sender

    def is_cancelled(self):
        return self._sender.is_cancelled()

    def send(self, text, reason, prompt_tokens, output_tokens):
        tensors = [pb_utils.Tensor("text", np.array([text.encode()], object))]
        if reason:
            tensors += [
                pb_utils.Tensor("finish_reason", np.array([reason.encode()], object)),
                pb_utils.Tensor("prompt_tokens", np.array([prompt_tokens], np.int32)),
                pb_utils.Tensor("output_tokens", np.array([output_tokens], np.int32)),
            ]
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if reason else 0
        self._sender.send(pb_utils.InferenceResponse(tensors), flags=flags)

    def fail(self, message, code=None):
        """An error of `code`, INTERNAL by default."""
        error = pb_utils.TritonError(message, pb_utils.TritonError.INTERNAL if code is None else code)
        self._sender.send(pb_utils.InferenceResponse(error=error), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def close(self):
        self._sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


class Publisher:
    """The scheduler's figures as Triton's metrics `fathom_generation_...`, with the label `model`."""

    def __init__(self, model):
        self._families, self._metrics = [], {}
        for field, (name, kind, description) in METRICS.items():
            family = pb_utils.MetricFamily(
                name=f"fathom_{name}", description=description, kind=getattr(pb_utils.MetricFamily, kind)
            )
            self._families.append(family)  # a metric lives no longer than its family
            self._metrics[field] = family.Metric(labels={"model": model})
        self._published = dict.fromkeys(METRICS, 0)

    def __call__(self, figures):
        for field, metric in self._metrics.items():
            value = getattr(figures, field)
            if value == self._published[field]:
                continue  # each call goes to the server and back
            metric.increment(value - self._published[field])  # of gauges, too: other instances add theirs
            self._published[field] = value


def _parameters(configured):
    """The values of config.pbtxt's `parameters`, by their keys."""
    given = {key: value["string_value"] for key, value in configured.items()}
    if unknown := sorted(set(given) - set(PARAMETERS)):
        raise ValueError(f"unknown parameters key '{unknown[0]}': choose {sorted(PARAMETERS)}")
    if missing := sorted(set(PARAMETERS) - set(given)):
        raise ValueError(f"parameters lack '{missing[0]}'")
    for key, least in PARAMETERS.items():
        if least == "":
            continue
        if not (given[key].isascii() and given[key].isdecimal() and int(given[key]) >= least):
            raise ValueError(f"parameter {key} is '{given[key]}': give a whole number from {least} on")
        given[key] = int(given[key])
    return given


def _newest(model):
    """The newest version folder that holds a decoder. Raises ValueError where it or a file beside it is missing."""
    found = [path.parent for path in model.glob("*/model.onnx") if path.parent.name.isdecimal()]
    folder = max(found, key=lambda path: int(path.name), default=model / "1")
    for name in ("model.onnx", "tokenizer.json", "generation.json"):
        if not (folder / name).is_file():
            raise ValueError(f"'{folder / name}' is missing: run `fathom export {model.name}`")
    return folder


def _values(request, name):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return [] if tensor is None else tensor.as_numpy().ravel()


def _value(request, name, default):
    """The number of an input [1]."""
    values = _values(request, name)
    return values[0].item() if len(values) else default


def _text(what, raw):
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(f"{what} is not UTF-8: {error}") from error
