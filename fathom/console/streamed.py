"""A streamed answer: text is printed as it arrives, other tensors get a line for each part."""

from __future__ import annotations

import codecs
import sys
import time
from typing import Any

from clients import ModelSpec
from fathom.console import answers
from fathom.console.answers import Outputs
from fathom.console.output import out
from loadtests.slo import about_ms


class Streamed:
    """The parts of one answer so far; `live` shows each at once. Times are in ms since the object was made.

    The text is the first output of texts. A model can add the outputs `finish_reason` and `output_tokens`: without the
    latter, parts are counted.
    """

    def __init__(self, spec: ModelSpec, *, live: bool) -> None:
        self._model, self._live = spec.name, live
        self._text_output = next((name for name, tensor in spec.outputs.items() if tensor.datatype == "BYTES"), "")
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")  # a part may end within a character
        self._start_s = time.perf_counter()
        self._parts: list[dict[str, Any]] = []
        self._text, self._reason, self._tokens = "", "", 0
        self._in_line = False

    def add(self, outputs: Outputs) -> None:
        """Take the next part."""
        at_ms = (time.perf_counter() - self._start_s) * 1e3
        part: dict[str, Any] = {"at_ms": round(at_ms, 3)}
        self._parts.append(part)
        if (reason := outputs.get("finish_reason")) is not None and reason.dtype == object:
            self._reason = b" ".join(reason.ravel()).decode(errors="backslashreplace")
        if (tokens := outputs.get("output_tokens")) is not None and tokens.dtype.kind in "iu":
            self._tokens = int(tokens.sum())
        text, rest = outputs.get(self._text_output), outputs
        if text is not None and text.size <= 1:
            part["text"] = self._decoder.decode(b"".join(text.ravel()))
            self._type(part["text"])
            rest = {name: array for name, array in outputs.items() if name != self._text_output}
        elif self._live and (text is not None or not self._text_output):
            self._end_line()
            for line in answers.sentences(self._model, outputs):
                out.print(f"{at_ms:8.1f} ms  {line}")
        if rest:
            part["outputs"] = answers.as_json(rest)

    def finish(self) -> None:
        """End the line that is being typed."""
        self._type(self._decoder.decode(b"", final=True))
        self._end_line()

    def summary(self) -> str:
        """`42 tokens, time to first token 81 ms, 39.5 tokens/s, finish reason stop`."""
        if not self._parts:
            return f"'{self._model}' ended its stream without an answer"
        unit = self._unit
        words = [
            f"{self._count:,} {unit}{'' if self._count == 1 else 's'}",
            f"time to first {unit} {about_ms(self._parts[0]['at_ms'])}",
            f"{self._per_s:,.{0 if self._per_s >= 100 else 1}f} {unit}s/s" if self._per_s else "",
            f"finish reason {self._reason}" if self._reason else "",
        ]
        return ", ".join(filter(None, words))

    def as_json(self) -> dict[str, Any]:
        """All of it for a program: without tokens for a model that does not count them, without a text for no text."""
        found: dict[str, Any] = {}
        if self._parts and self._text_output:
            found = {"text": self._text, "ttft_ms": self._parts[0]["at_ms"]}
            found |= {"tokens": self._tokens} if self._tokens else {}
            found |= {f"{self._unit}s_per_s": round(self._per_s, 2)} if self._per_s else {}
            found |= {"finish_reason": self._reason} if self._reason else {}
        return {**found, "parts": self._parts}

    @property
    def _unit(self) -> str:
        return "token" if self._tokens else "part"

    @property
    def _count(self) -> int:
        return self._tokens or len(self._parts)

    @property
    def _per_s(self) -> float:
        """After the first, 0 where there is no more than that."""
        took_ms = self._parts[-1]["at_ms"] - self._parts[0]["at_ms"]
        return (self._count - 1) / took_ms * 1e3 if took_ms else 0.0

    def _type(self, text: str) -> None:
        self._text += text
        if self._live and text:
            self._in_line = not text.endswith("\n")
            sys.stdout.write(text)
            sys.stdout.flush()

    def _end_line(self) -> None:
        if self._in_line:
            self._in_line = False
            print(flush=True)
