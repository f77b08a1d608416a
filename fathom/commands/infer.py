"""Send a request to a model and print its answer for a person to read.

  fathom infer image_classifier image=@digit.png
  fathom infer text_embedding text="play some jazz" text="put on some music"
  fathom infer rain_forecast temperature_c=12 humidity_pct=96 pressure_hpa=998 wind_speed_m_s=9 cloud_cover_pct=100
  fathom infer mobilenet_v2 pixels=@digit.png --output probabilities.npy
  fathom infer rain_forecast ... --repeat 1000 --concurrency 8
  fathom infer recipe_writer prompt="a recipe for pancakes" max_tokens=200
  fathom infer voice_command audio=@word.wav

Repeat an input to send a batch. A value is text, a number or a JSON list. name=@file reads a .npy, .json, image, sound
or text file, and name=@- reads standard input. For a text that begins with @, write @@.

A model that keeps state (sequence batching) gets one request for each row, as one sequence: a .wav file goes in chunks.
The text of a streaming (decoupled) model is printed as it arrives; a line of figures follows on stderr. Ctrl-C cancels
the request.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clients import Client, DeadlineExceededError, InvalidInputError, Model, ServerError
from clients.options import LARGEST_ANSWER_BYTES, MOST_ANSWER_BYTES
from export.added.recipe import in_short
from export.command import quote
from fathom import latencies
from fathom.console import answers, inputs, options
from fathom.console.arguments import STOPPED, UsageError
from fathom.console.output import err, out, print_json
from fathom.console.servers import connect, same_server
from fathom.console.streamed import Streamed
from fathom.recipes import in_sequence, question
from loadtests.target import access_options
from server import admin


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom infer`."""
    command.add_argument("model", metavar="MODEL", help="model or pipeline to ask")
    command.add_argument(
        "inputs", nargs="*", metavar="name=value", help="an input and its value; name=@file reads the value from a file"
    )
    command.add_argument(
        "--example", action="store_true", help="send the first of the example requests that the model was exported with"
    )
    command.add_argument(
        "--top",
        type=options.count,
        default=5,
        metavar="N",
        help="number of labels to get from a classifier (default: 5)",
    )

    where = command.add_argument_group("server and request")
    options.add_server(where)
    options.add_repository(where)
    where.add_argument(
        "--timeout",
        type=options.duration_s,
        default=30.0,
        metavar="TIME",
        help="deadline of the request (default: 30s)",
    )
    where.add_argument(
        "--max-answer-bytes",
        type=options.count,
        default=MOST_ANSWER_BYTES,
        metavar="N",
        help="refuse an answer of more bytes before reading it (default: %(default)s)",
    )
    access_options.add_arguments(where)
    where.add_argument(
        "--shared-memory",
        action="store_const",
        const="system",
        help="send large tensors through shared memory; the server must run on this machine",
    )

    result = command.add_argument_group("answer")
    options.add_json(result)
    result.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write the output tensors to this file: .npy for one, .npz for several",
    )

    look = command.add_argument_group("quick latency check")
    look.add_argument(
        "--repeat",
        type=options.count,
        metavar="N",
        help="send the request N more times, and print p50, p90, p99 and the request rate",
    )
    look.add_argument(
        "--concurrency", type=options.count, metavar="N", help="requests in flight with --repeat (default: 1)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Send the request and print the answer."""
    _check(arguments)
    try:
        return _run(arguments)
    except (DeadlineExceededError, ServerError) as error:
        named = str(error).replace("timeout_s", "--timeout").replace("max_answer_bytes", "--max-answer-bytes")
        raise UsageError(named) from error
    except InvalidInputError as error:
        raise UsageError(f"{error}{inputs.forgotten_at(arguments.inputs)}") from error


def _run(arguments: argparse.Namespace) -> int:
    access = access_options.read_access(arguments)
    client_options = {
        "timeout_s": arguments.timeout,
        "max_answer_bytes": arguments.max_answer_bytes,
        "shared_memory": arguments.shared_memory,
        "headers": access.headers,
        "tls": access.tls,
    }
    with connect(arguments.server, arguments.model_repository, access, [arguments.model]) as server:
        if arguments.shared_memory:  # which the server lets nobody else use
            client_options["headers"] = {**admin.headers(server), **access.headers}
        with Client(server, **client_options) as client:
            model = client.model(arguments.model)
            arrays = (
                question(model.spec, arguments.model_repository).inputs
                if arguments.example
                else inputs.parse(model.spec, arguments.inputs)
            )
            if model.spec.decoupled:
                return _stream(arguments, model, arrays)
            if model.spec.sequence and arguments.repeat:
                raise UsageError(f"'{arguments.model}' keeps state: leave --repeat out; `fathom load` measures")
            start = time.perf_counter()
            try:
                lines, result = _infer(arguments, client, model, arrays)
            except InvalidInputError as error:
                if "decoupled" not in error.details:
                    raise
                return _stream(arguments, model, arrays)  # of a server that does not show its configurations
            result["latency_ms"] = round((time.perf_counter() - start) * 1e3, 3)
        if not arguments.json:
            _print(lines)
        interrupted = False
        if arguments.repeat:
            look = latencies.measure(
                server,
                arguments.model,
                arrays,
                requests=arguments.repeat,
                concurrency=arguments.concurrency or 1,
                **client_options,
            )
            result["repeat"], interrupted = look.as_json(), look.interrupted
            if not arguments.json:
                _print([look.sentence(), *_caveat(arguments, look.slo)])
    if arguments.json:
        print_json({"model": arguments.model, **result, "answers": lines})
    return STOPPED if interrupted else 0


def _infer(
    arguments: argparse.Namespace, client: Client, model: Model, arrays: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """The answer as lines for a person, and as JSON."""
    labelled = None if arguments.output else answers.labelled_output(client, model)
    if labelled is not None:
        classes = model.classify(arrays, top=arguments.top, output=labelled)
        found = [answers.ranked_as_json(entry) for entry in classes]
        lines = [answers.ranked(entry) for entry in classes]
        others = [name for name in model.spec.outputs if name != labelled]
        if not others:
            return lines, {"labels": found}
        rest = model(arrays, outputs=others)
        lines += [in_short(name, array) for name, array in rest.items()]
        return lines, {"labels": found, "outputs": answers.as_json(rest)}
    outputs = in_sequence(model, arrays)[0] if model.spec.sequence else model(arrays)
    if arguments.output:
        answers.write(arguments.output, outputs)
        return [f"{arguments.output}: {answers.shapes(outputs)}"], {"output": str(arguments.output)}
    return answers.sentences(arguments.model, outputs), {"outputs": answers.as_json(outputs)}


def _stream(arguments: argparse.Namespace, model: Model, arrays: Mapping[str, Any]) -> int:
    if arguments.repeat or arguments.output:
        what = f"'{arguments.model}' streams its answer (decoupled): leave out --repeat and --output"
        raise UsageError(f"{what}; `> FILE` keeps the text, and `fathom load` measures latency")
    answer, interrupted = Streamed(model.spec, live=not arguments.json), False
    try:
        for outputs in model.stream(arrays):
            answer.add(outputs)
    except KeyboardInterrupt:
        if not arguments.json:
            raise
        interrupted = True
    finally:
        answer.finish()
    if arguments.json:
        print_json({"model": arguments.model, **answer.as_json(), "interrupted": interrupted})
    else:
        err.print(answer.summary(), soft_wrap=True)
    return STOPPED if interrupted else 0


def _print(lines: list[str]) -> None:
    for line in lines:
        out.print(line, markup=False)


def _caveat(arguments: argparse.Namespace, slo: str) -> list[str]:
    command = f"fathom capacity {quote(arguments.model)} --slo {slo}{same_server(arguments)}"
    return [f"(These requests waited for one another, so this rate is not the capacity. `{command}` measures it.)"]


def _check(arguments: argparse.Namespace) -> None:
    """Raise UsageError for options that do not go together."""
    if arguments.example and arguments.inputs:
        raise UsageError(f"--example sends inputs of its own: leave out {arguments.inputs[0]}")
    if arguments.max_answer_bytes > LARGEST_ANSWER_BYTES:
        raise UsageError(f"--max-answer-bytes {arguments.max_answer_bytes}: use {LARGEST_ANSWER_BYTES} at most")
    if arguments.concurrency is not None and arguments.repeat is None:
        raise UsageError("--concurrency needs --repeat N: add the number of requests")
    if arguments.output is not None and arguments.output.suffix not in (".npy", ".npz"):
        raise UsageError(f"--output '{arguments.output}': use a .npy file, or .npz for several tensors")
