"""The tutorial's tokenizer and ensemble, in front of a small network: text in, label out."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from complete_server import complete_server
from onnx import TensorProto, numpy_helper
from onnx.helper import make_node
from small_models import write_onnx
from tokenizers import Tokenizer, models, pre_tokenizers

from clients import Client, InvalidInputError
from fathom import cli

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorials" / "text-classifier.md").read_text()
SCORES = {"[PAD]": (9, 9), "[UNK]": (0, 0), "what": (0, 0), "a": (0, 0), "wonderful": (-1, 2), "dreadful": (3, -1)}
CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] },
        { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] } ]
output [ { name: "logits" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" } ]
dynamic_batching {}
instance_group [ { count: 1 kind: KIND_CPU } ]
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
"""


def shown(name):
    """The code behind the comment of that name."""
    return re.search(rf"<!-- {name}: [^\n]* -->\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[1]


def write_classifier(folder):
    """As `fathom add sst2 --hf` leaves it: token ids and a mask in, the sums of the tokens' scores out."""
    ids = TensorProto.INT64, ["rows", "tokens"]
    scores = numpy_helper.from_array(np.array(list(SCORES.values()), dtype=np.float32), "scores")
    axes = numpy_helper.from_array(np.array([2]), "last")
    nodes = [
        make_node("Gather", ["scores", "input_ids"], ["of_tokens"]),
        make_node("Cast", ["attention_mask"], ["kept"], to=TensorProto.FLOAT),
        make_node("Unsqueeze", ["kept", "last"], ["wide"]),
        make_node("Mul", ["of_tokens", "wide"], ["masked"]),
        make_node("ReduceSum", ["masked", "tokens"], ["logits"], keepdims=0),
    ]
    inputs = [("input_ids", *ids), ("attention_mask", *ids)]
    constants = [scores, axes, numpy_helper.from_array(np.array([1]), "tokens")]
    write_onnx(folder / "1" / "model.onnx", nodes, inputs, [("logits", TensorProto.FLOAT, ["rows", 2])], constants)
    (folder / "config.pbtxt").write_text(CONFIG)
    (folder / "labels.txt").write_text("NEGATIVE\nPOSITIVE\n")


def test_text_goes_in_and_a_label_comes_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FATHOM_MODEL_REPOSITORY", raising=False)
    repository = Path("model_repository")
    write_classifier(repository / "sst2")
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(SCORES)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    Path("sst2").mkdir()
    tokenizer.save("sst2/tokenizer.json")
    shutil.copytree(ROOT / "model_repository" / "text_tokenizer", repository / "text_tokenizer")
    exec(compile(shown("tokenizer"), "text-classifier.md", "exec"), {})
    shutil.rmtree(repository / "text_tokenizer")
    (repository / "sentiment" / "1").mkdir(parents=True)
    (repository / "sentiment" / "config.pbtxt").write_text(shown("ensemble"))
    assert cli.main(["check", "sentiment", "sst2", "sst2_tokenizer"]) == 0, capsys.readouterr().out
    with complete_server(repository) as server, Client(server.grpc_url) as client:
        sentiment = client.model("sentiment")
        rows = sentiment.classify(text=["what a wonderful film", "dreadful"])
        assert [[(label.label, label.value) for label in row] for row in rows] == [
            [("POSITIVE", 2), ("NEGATIVE", -1)],
            [("NEGATIVE", 3), ("POSITIVE", -1)],
        ]
        with pytest.raises(InvalidInputError):
            sentiment(text=[""])
