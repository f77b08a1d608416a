"""ImageNet weights of a package on real photographs whose contents are known."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clients import Client
from export.errors import RecipeError
from export.exporter import export_model
from export.lint.lint import lint
from export.models.pictures import efficientnet_lite, photographs
from export.models.pictures.mobilenet_v2 import MobileNetV2
from export.recipe.recipe import Source
from fathom.recipes import measure_served
from server import TritonServer

CATS = {"tabby", "tiger cat", "Egyptian cat"}
# (package, file, what a person would call it; the dahlia has no class, and a daisy is its next of kin)
KNOWN = [
    ("scikit-learn", "china.jpg", {"palace"}),
    ("scikit-learn", "flower.jpg", {"daisy"}),
    ("scikit-image", "chelsea.png", CATS),
    ("scikit-image", "coffee.png", {"espresso"}),
    ("scikit-image", "camera.png", {"tripod"}),
    ("scikit-image", "rocket.jpg", {"missile"}),
]


def photograph(package: str, name: str) -> Path:
    """A file of a package, which is not imported."""
    return next(Path(str(file.locate())) for file in metadata.files(package) or () if file.name == name)


@pytest.fixture(scope="module")
def source() -> Source:
    recipe = MobileNetV2()
    return recipe.load(recipe.resolve("efficientnet-lite0"))


@pytest.mark.parametrize(("package", "name", "contents"), KNOWN, ids=[row[1] for row in KNOWN])
def test_a_photograph_is_named(source: Source, package: str, name: str, contents: set[str]) -> None:
    pixels = efficientnet_lite.PREPROCESSOR(Image.open(photograph(package, name)))

    best = source.predict({"pixels": np.stack([pixels])})["probabilities"][0].argmax()

    assert source.labels["labels.txt"][best] in contents


def test_the_labels_are_those_of_imagenet() -> None:
    names = efficientnet_lite.labels()

    assert (len(names), names[0], names[281], names[999]) == (1000, "tench", "tabby", "toilet tissue")


def test_pixels_are_those_of_the_published_preprocessing() -> None:
    """The shorter side becomes 256 pixels, of which the middle 224 are seen; a number is (pixel - 127) / 128."""
    columns = np.tile(np.arange(512, dtype=np.uint16) // 2, (256, 1)).astype(np.uint8)
    rule = efficientnet_lite.PREPROCESSOR
    pixels = rule(Image.fromarray(columns))

    assert pixels.shape == (224, 224, 3)
    assert pixels[0, :, 0].tolist() == columns[0, 144:368].tolist()
    assert (rule.scale, {*rule.mean}, {*rule.std}) == (1, {127}, {128})


def test_the_parts_of_photographs_are_what_the_pipeline_gets(source: Source) -> None:
    evaluation = source.evaluation
    files = evaluation.requests["image"]

    assert files.shape == (len(evaluation), 1) == (photographs.EVALUATED, 1)
    for row in (0, 1, len(evaluation) - 1):
        (image,) = photographs.opened([files[row, 0]])
        assert (efficientnet_lite.PREPROCESSOR(image) == evaluation.inputs["pixels"][row]).all()
    assert len(np.unique(evaluation.truth["source_class"])) >= 8, "the answers are not all one"


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(RecipeError) as caught:
        efficientnet_lite.find("no-such-package")
    assert (caught.value.field, caught.value.expected) == ("package", "no-such-package")


@pytest.mark.slow
@pytest.mark.process
def test_the_whole_way_to_a_served_photograph(exported: Path) -> None:
    recipe = MobileNetV2()

    result = export_model(recipe, exported, weights="efficientnet-lite0")

    assert "mobilenet_v2/config.pbtxt: input[0].dims [128, 128, 3] -> [224, 224, 3]" in result.notes
    assert result.manifest.source["licence"] == "Apache-2.0"
    assert [finding for finding in lint(exported) if finding.severity == "error"] == []
    with (
        TritonServer(exported, models=("image_classifier",), stop_timeout_s=0) as server,
        Client(server.grpc_url) as client,
    ):
        measured = measure_served(recipe, client, exported)
        file = photograph("scikit-image", "chelsea.png").read_bytes()
        ((best, *_),) = client.model("image_classifier").classify(image=[file])
    assert {station: each.accuracy["top1_agreement"] for station, each in measured.items()} == {
        "served": 1.0,
        "pipeline": 1.0,
    }
    assert best.label in CATS
