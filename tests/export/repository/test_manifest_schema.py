"""docs/manifest.schema.json describes every manifest that an export writes, and nothing looser."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from product_model import Product, write_product_repository

from export.exporter import export_model

SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "manifest.schema.json").read_text())


def problems(record: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(SCHEMA).iter_errors(record)]


def exported(tmp_path: Path, precision: str) -> dict[str, Any]:
    repository = write_product_repository(tmp_path / "model_repository")
    export_model(Product(), repository, precision=precision)
    record: dict[str, Any] = json.loads((repository / "product" / "1" / "manifest.json").read_text())
    return record


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_manifest_of_every_precision_keeps_it(tmp_path: Path, precision: str) -> None:
    assert problems(exported(tmp_path, precision)) == []


def test_the_bundled_models_and_their_companions_keep_it(exported_repository: Path) -> None:
    manifests = sorted(exported_repository.glob("*/1/manifest.json"))
    assert len(manifests) == 5
    for path in manifests:
        assert problems(json.loads(path.read_text())) == [], path


BREACHES = [
    (lambda record: record.pop("stations"), "figures are missing"),
    (lambda record: record.update(precision="int4"), "an unknown precision"),
    (lambda record: record.update(reduction=None), "a reduced graph without its settings"),
    (lambda record: record["stations"].pop("onnx_fp32"), "a reduced graph without the one it was made from"),
    (lambda record: record["files"]["1/model.onnx"].update(sha256="abc"), "half a hash"),
    (lambda record: record["reduction"]["calibration"].pop("sha256"), "calibration data that nobody can identify"),
    (lambda record: record.update(notes="x"), "a field that the schema does not have"),
    (lambda record: record.update(companion_of="minilm"), "a model and a companion at once"),
]


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The manifest of a model at int8, to be copied."""
    return exported(tmp_path_factory.mktemp("quantised"), "int8")


@pytest.mark.parametrize(("damage", "why"), BREACHES, ids=[row[-1] for row in BREACHES])
def test_what_breaks_it(quantised: dict[str, Any], damage, why: str) -> None:
    record = copy.deepcopy(quantised)
    assert not problems(record)
    damage(record)

    assert problems(record), why
