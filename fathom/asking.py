"""Ask a served model a question as a person would: in one request, as a stream of parts, or as a sequence."""

from __future__ import annotations

import time
from dataclasses import dataclass

from clients import Model
from export.recipe.system import Question
from fathom.console import answers
from fathom.console.streamed import Streamed
from fathom.recipes import in_sequence


@dataclass(frozen=True)
class Answer:
    """In words. The latency is until it was whole; of a sequence that of the last request."""

    text: str
    latency_ms: float


def ask(model: Model, question: Question) -> Answer:
    """Raises InferenceError."""
    if model.spec.sequence:
        outputs, latency_ms = in_sequence(model, question.inputs)
        sentences = answers.sentences(model.spec.name, outputs)
        return Answer(next((text for text in reversed(sentences) if text), ""), latency_ms)
    start = time.perf_counter()
    if model.spec.decoupled:
        streamed = Streamed(model.spec, live=False)
        for part in model.stream(question.inputs):
            streamed.add(part)
        streamed.finish()
        text = " ".join(str(streamed.as_json().get("text", "")).split())
    else:
        text = "; ".join(answers.sentences(model.spec.name, model(question.inputs)))
    return Answer(text, (time.perf_counter() - start) * 1e3)
