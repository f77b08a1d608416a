"""Ask a served model and print the answer as a person would want it.

  fathom infer image_classifier image=@digit.png
  fathom infer text_embedding text="play some jazz" text="put on some music"
  fathom infer rain_forecast temperature_c=12 humidity_pct=96 pressure_hpa=998 wind_speed_m_s=9 cloud_cover_pct=100

An input given several times makes a batch. Numbers may be JSON lists, or files: name=@pixels.npy.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from clients import Client
from fathom import answers, inputs, options, payloads
from fathom.errors import UsageError
from fathom.output import out, print_json
from fathom.servers import connect


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom infer`."""
    command.add_argument("model", metavar="MODEL", help="a model or pipeline of the server")
    command.add_argument("inputs", nargs="*", metavar="name=value", help="an input; name=@file reads a file")
    command.add_argument(
        "--example", action="store_true", help="ask the first example request that the model was exported with"
    )
    command.add_argument(
        "--server",
        metavar="HOST:PORT",
        help=f"gRPC endpoint (default: {options.DEFAULT_SERVER}, or a server started for this question)",
    )
    options.add_repository(command)
    command.add_argument("--timeout", type=float, default=30.0, metavar="S", help="deadline in seconds (default: 30)")
    command.add_argument("--top", type=int, default=5, metavar="K", help="labels to ask a classifier for (default: 5)")
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Ask and print."""
    if arguments.example and arguments.inputs:
        raise UsageError(f"--example asks its own inputs: leave out {arguments.inputs[0]}")
    with (
        connect(arguments.server, arguments.model_repository) as server,
        Client(server, timeout_s=arguments.timeout) as client,
    ):
        model = client.model(arguments.model)
        arrays = (
            payloads.example(arguments.model, arguments.model_repository)
            if arguments.example
            else inputs.parse(model.spec, arguments.inputs)
        )
        labelled = answers.labelled_output(client, model)
        start = time.perf_counter()
        result: dict[str, Any]
        if labelled is not None:
            classes = model.classify(arrays, top=arguments.top, output=labelled)
            lines = [answers.ranked(entry) for entry in classes]
            result = {"labels": [[{"label": c.label, "probability": c.value} for c in entry] for entry in classes]}
        else:
            outputs = model(arrays)
            lines = answers.sentences(arguments.model, outputs)
            result = {"outputs": answers.as_json(outputs)}
        latency_ms = (time.perf_counter() - start) * 1e3
    if arguments.json:
        print_json({"model": arguments.model, **result, "answers": lines, "latency_ms": round(latency_ms, 3)})
    else:
        for line in lines:
            out.print(line, markup=False)
    return 0
