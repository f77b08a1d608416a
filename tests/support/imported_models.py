"""Models as somebody might bring them: ONNX files of every awkward kind, and functions that make torch modules and
scikit-learn pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F, I64 = TensorProto.FLOAT, TensorProto.INT64
Tensor = tuple[str, int, Sequence[int | str | None] | None]


def write(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    weights: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    ir_version: int = 8,
    weights_as_inputs: bool = False,
    domains: Sequence[tuple[str, int]] = (),
) -> Path:
    """Save a model; returns its path. A shape of None leaves even the rank open."""
    values = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    if weights_as_inputs:
        values += [helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in tensors]
    outs = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs]
    graph = helper.make_graph(list(nodes), "imported", values, outs, tensors)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(*each) for each in domains)]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version), str(path))
    return path


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    """One operator."""
    return helper.make_node(kind, list(inputs), list(outputs), **attributes)


def matrix(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Random FP32 weights."""
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


FUNCTIONS = '''
import warnings

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC


def churn():
    """Text and numbers in, a text label and probabilities out."""
    random, rows = np.random.default_rng(0), 300
    plan = random.choice(["basic", "family", "business"], rows)
    fee, months = np.round(random.uniform(5, 60, rows), 1), random.integers(1, 80, rows).astype(float)
    leaves = np.where(((fee > 30) & (plan == "basic")) | (months < 6), "leaves", "stays")
    table = np.empty((rows, 3), object)
    table[:, 0], table[:, 1], table[:, 2] = plan, fee, months
    columns = ColumnTransformer(
        [("text", OneHotEncoder(handle_unknown="ignore"), [0]), ("numbers", StandardScaler(), [1, 2])]
    )
    trees = GradientBoostingClassifier(n_estimators=10, random_state=0)
    pipeline = Pipeline([("columns", columns), ("trees", trees)]).fit(table, leaves)
    return pipeline, {"plan": plan, "monthly_fee": fee, "months": months}


def strict():
    """Text that must be one of its categories, which an empty one is not."""
    plan = np.array(["basic", "family", "business"] * 10)[:, None]
    return Pipeline(
        [("text", OneHotEncoder(sparse_output=False)), ("line", LinearRegression())]
    ).fit(plan.astype(object), np.arange(30.0)), {"plan": plan.ravel()}


def line():
    random = np.random.default_rng(0)
    table = random.normal(size=(100, 4))
    return LinearRegression().fit(table, table @ [1.0, 2.0, 3.0, 4.0])


def clusters():
    """Takes doubles only, and gives whole numbers without an axis beside the batch."""
    table = np.random.default_rng(0).normal(size=(50, 3))
    return KMeans(3, n_init=1, random_state=0).fit(table), table


def margin():
    """A classifier without probabilities, and so without ZipMap."""
    table = np.random.default_rng(0).normal(size=(50, 3))
    return LinearSVC().fit(table, table[:, 0] > 0), table


def comments():
    """Texts in a row, not in a table."""
    texts = ["a good film", "a bad film", "a great plot", "awful acting"] * 5
    return Pipeline([("words", TfidfVectorizer()), ("line", LogisticRegression())]).fit(texts, [1, 0, 1, 0] * 5), texts


def unfitted():
    return LinearRegression()


class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(50, 8)
        self.head = torch.nn.Linear(10, 3)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, ids, scale, unused=None):
        logits = self.drop(self.head(torch.cat([self.table(ids).mean(1), scale], 1)))
        parts = (logits.softmax(-1), {"double": logits * 2}, None)
        return {"logits": logits, "total": logits.sum(-1), "aux": {"parts": parts}}


def words():
    """Two inputs in another order than forward() has them, an open length, and an output with nothing but the batch."""
    torch.manual_seed(0)
    example = {"scale": torch.randn(4, 2), "ids": torch.randint(0, 50, (4, 7))}
    return Words(), example, {"ids": {1: "tokens"}}


class Named(torch.nn.Module):
    def forward(self, file):
        return {"doubled": file * 2}


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(Named()), torch.randn(2, 3)


def misfit():
    return torch.nn.Linear(3, 2), torch.randn(2, 5)


def complex_valued():
    return torch.nn.Identity(), torch.randn(2, 3, dtype=torch.complex64)


class Answering(torch.nn.Module):
    """Takes x, and answers with what a function makes of it."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


def _answering(make):
    return Answering(make).eval(), torch.randn(4, 3)


def own_name():
    return _answering(lambda x: {"x": x * 2})


def one_name():
    return _answering(lambda x: {"a.b": x, "a": {"b": x}})


def row_by_row():
    return _answering(lambda x: [{"boxes": row} for row in x])


def no_tensors():
    return _answering(lambda x: {"loss": None})


def fixed_rows():
    """A constant, its own input and one tensor twice; nothing for torch to open a batch on."""
    def make(x):
        flat = x.reshape(int(x.shape[0]) * 3)
        return flat, torch.tensor([1, 2, 3]), x, flat

    return _answering(make)


def exits():
    raise SystemExit(3)


def no_axes():
    return Named(), torch.randn(2, 3), 5


def other_axes():
    return Named(), torch.randn(2, 3), {"folder": {1: "n"}}


def module_only():
    return Words()


def no_module():
    return {"weights": 1}


def broken():
    raise KeyError("weights.safetensors")
'''


def write_functions(folder: Path, name: str = "imported_functions") -> str:
    """Write FUNCTIONS as a module into `folder`; returns its name."""
    (folder / f"{name}.py").write_text(FUNCTIONS)
    return name


def save_encoder(folder: Path) -> Path:
    """A tiny BERT with a tokenizer's settings, as save_pretrained() leaves it."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 48}')
    return folder


def save_vision(folder: Path) -> Path:
    """A tiny vision transformer with three labels."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=24,
        patch_size=8,
        id2label={0: "a", 1: "b", 2: "c"},
        label2id={"a": 0, "b": 1, "c": 2},
    )
    ViTForImageClassification(config).save_pretrained(folder)
    return folder
