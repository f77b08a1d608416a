"""The tutorial's text classifier, with a small model of random weights: text in, label out."""

import re
import shutil
from pathlib import Path

import pytest
from complete_server import complete_server

from clients import Client, InvalidInputError
from fathom import cli

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorials" / "text-classifier.md").read_text()
WORDS = ("[PAD]", "[UNK]", "what", "a", "wonderful", "dreadful", "film")


def shown(name):
    """The code behind the comment of that name."""
    return re.search(rf"<!-- {name}: [^\n]* -->\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[1]


def save_classifier(folder):
    """What the hub's folder has: a configuration, weights and a tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import DistilBertConfig, DistilBertForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(0)
    small = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 512}
    labels = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
    model = DistilBertForSequenceClassification(DistilBertConfig(vocab_size=len(WORDS), **small, **labels))
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    inputs = ["input_ids", "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_input_names=inputs
    ).save_pretrained(folder)
    return model.eval()


def test_text_goes_in_and_a_label_comes_out(tmp_path, monkeypatch, capsys):
    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FATHOM_MODEL_REPOSITORY", raising=False)
    model = save_classifier(tmp_path / "sst2")
    shutil.copytree(ROOT / "model_repository" / "text_tokenizer", "model_repository/text_tokenizer")
    assert cli.main(["add", "sst2", "--hf", "sst2", "--no-serve"]) == 0
    exec(compile(shown("tokenizer"), "text-classifier.md", "exec"), {})
    shutil.rmtree("model_repository/text_tokenizer")
    Path("model_repository/sentiment/1").mkdir(parents=True)
    Path("model_repository/sentiment/config.pbtxt").write_text(shown("ensemble"))
    capsys.readouterr()
    assert cli.main(["check", "sentiment", "sst2", "sst2_tokenizer"]) == 0, capsys.readouterr().out
    ids = torch.tensor([[2, 3, 4, 6]])
    with torch.no_grad():
        logits = model(ids).logits[0]
    with complete_server(Path("model_repository")) as server, Client(server.grpc_url) as client:
        sentiment = client.model("sentiment")
        ((best, other),) = sentiment.classify(text=["what a wonderful film"])
        assert best.label == model.config.id2label[int(logits.argmax())]
        assert [best.value, other.value] == pytest.approx(sorted(logits.tolist(), reverse=True), abs=1e-4)
        with pytest.raises(InvalidInputError):
            sentiment(text=[""])
