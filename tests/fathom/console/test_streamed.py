"""A streamed answer: its text as it is typed, its figures, and what a program gets."""

import numpy as np
import pytest

from clients import ModelSpec, TensorSpec
from fathom.console.streamed import Streamed

OUTPUTS = {"text": "BYTES", "finish_reason": "BYTES", "output_tokens": "INT32"}
SPEC = ModelSpec("m", "", 0, {}, {name: TensorSpec(name, datatype, (1,)) for name, datatype in OUTPUTS.items()})


def part(text: bytes, **last):
    arrays = {"text": np.array([text], object)}
    arrays |= {
        name: np.array([value], object if isinstance(value, bytes) else np.int32) for name, value in last.items()
    }
    return arrays


PIECES = {
    "a character in two parts": ([b"cr\xc3", b"\xa8me"], ["cr", "ème"]),
    "bytes that are no text": ([b"a\xff", b"b"], ["a\\xff", "b"]),
    "half a character at the end": ([b"a\xc3"], ["a", "\\xc3"]),
    "an empty part": ([b"", b"a"], ["", "a"]),
    "a line end of its own": ([b"a\n"], ["a\n"]),
}


@pytest.mark.parametrize("case", PIECES)
def test_the_text_is_typed_part_by_part(case, capsys):
    sent, typed = PIECES[case]
    answer = Streamed(SPEC, live=True)
    seen = []
    for text in sent:
        answer.add(part(text))
        seen.append(capsys.readouterr().out)
    answer.finish()
    rest = capsys.readouterr().out
    assert seen == typed[: len(sent)]
    assert "".join((*seen, rest)) == "".join(typed).removesuffix("\n") + "\n"
    assert answer.as_json()["text"] == "".join(typed)


def test_tokens_are_those_that_the_model_counts_and_else_parts():
    answer = Streamed(SPEC, live=False)
    assert answer.as_json() == {"parts": []}
    answer.add(part(b"one"))
    assert answer.summary().startswith("1 part, ")
    answer.add(part(b" two three", finish_reason=b"stop", output_tokens=3))
    answer.finish()
    found = answer.as_json()
    assert (found["text"], found["tokens"], found["finish_reason"]) == ("one two three", 3, "stop")
    first, last = (entry["at_ms"] for entry in found["parts"])
    assert found["ttft_ms"] == first
    assert found["tokens_per_s"] == pytest.approx(2000 / (last - first), rel=0.01)
    assert answer.summary().startswith("3 tokens, ")
    assert answer.summary().endswith(" stop")


def test_a_part_without_the_text_types_nothing(capsys):
    answer = Streamed(SPEC, live=True)
    answer.add(part(b"typed"))
    answer.add({"finish_reason": np.array([b"stop"], object)})
    answer.finish()
    assert capsys.readouterr().out == "typed\n"
    assert answer.as_json()["parts"][1]["outputs"]["finish_reason"]["data"] == ["stop"]


def test_several_texts_in_one_part_are_lines(capsys):
    answer = Streamed(SPEC, live=True)
    answer.add(part(b"typed"))
    answer.add({"text": np.array([b"a", b"b"], object)})
    typed, line = capsys.readouterr().out.splitlines()
    assert typed == "typed"
    assert all(word in line for word in (" ms ", "text", "'a', 'b'"))
