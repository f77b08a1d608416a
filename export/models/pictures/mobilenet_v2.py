"""Image classifiers, pixels in and probabilities out.

The bundled one is a small MobileNetV2 (width 0.5, 128x128) and names scikit-learn's handwritten digits; `train` made
its weights. With `--weights` any MobileNetV2 classifier of transformers is exported by the same code, at its own size
with its own labels, and with `--weights efficientnet-lite0` one of ImageNet's thousand classes from a package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from export.errors import RecipeError
from export.graph.labels import FILE as LABEL_FILE
from export.models.pictures import digits, efficientnet_lite, photographs
from export.models.pictures.images import Preprocessor
from export.precision.precision import FP16, INT8
from export.recipe import weight_files
from export.recipe.limits import Figure, Reduced, Tolerance
from export.recipe.recipe import BUNDLED, Array, Arrays, Evaluation, Recipe, Source, Weights
from export.recipe.system import Question, System

DIGITS_WEIGHTS = Path(__file__).with_name("digits_mobilenet_v2.safetensors")
DIGITS_SIZE = 128
DIGITS_PREPROCESSOR = Preprocessor(size={"height": DIGITS_SIZE, "width": DIGITS_SIZE})
COMPANION = "image_preprocess"


class MobileNetV2(Recipe):
    """`pixels` UINT8 [N, height, width, 3] -> `probabilities` FP32 [N, labels]; normalisation and softmax in the
    graph."""

    name = "mobilenet_v2"
    summary = "image classifier (MobileNetV2, handwritten digits)"
    figures = (
        Figure("top1_accuracy", "fraction of 450 held-out digits named correctly", tolerance=0.005),
        Figure("top1_agreement", "fraction of the pictures given the same first label as the source", tolerance=0.005),
    )
    tolerance = Tolerance(max_abs=1e-3, min_cosine=0.9999)
    # INT8 may cost a point of accuracy, and a probability a tenth where the picture leaves room for doubt.
    reduced: ClassVar[Mapping[str, Reduced]] = {
        FP16: Reduced(Tolerance(max_abs=5e-3, min_cosine=0.9999)),
        INT8: Reduced(Tolerance(max_abs=0.1, min_cosine=0.98), losses={"top1_accuracy": 0.01, "top1_agreement": 0.01}),
    }
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "scikit-learn", "pillow")

    companions = (COMPANION,)

    @property
    def systems(self) -> tuple[System, ...]:
        """`image` BYTES [N, 1], each a PNG file, through image_preprocess."""
        return (System("image_classifier", (COMPANION,), _png_requests, _question),)

    def resolve(self, weights: str | None) -> Weights:
        if weights in (efficientnet_lite.NAME, efficientnet_lite.PACKAGE):
            return efficientnet_lite.find()
        if weights not in (None, BUNDLED):
            return weight_files.find(weights, needs=("config.json",))
        return weight_files.trained_here(
            DIGITS_WEIGHTS, "python -m export.models.pictures.train", explicit=weights is not None
        )

    def load(self, weights: Weights) -> Source:
        import torch

        network, preprocessor, labels = _network(weights)
        module = _classifier_class()(network, preprocessor).eval()

        def predict(arrays: Arrays) -> dict[str, Array]:
            with torch.inference_mode():
                return {"probabilities": module(torch.from_numpy(np.ascontiguousarray(arrays["pixels"]))).numpy()}

        def write_onnx(path: Path) -> None:
            from export.graph.onnx_file import write_torch

            example = torch.zeros(2, *preprocessor.height_width, 3, dtype=torch.uint8)
            write_torch(module, {"pixels": example}, {"pixels": {0: "batch"}}, "probabilities", path)

        pictures = _photographs if len(labels) >= efficientnet_lite.CLASSES else _digits
        evaluation = pictures(preprocessor)
        if weights.custom:
            from export.recipe.recipe import answers

            first = answers(predict, evaluation)["probabilities"].argmax(axis=1)
            evaluation = replace(evaluation, truth={"source_class": first})
        assets = {COMPANION: {"1/preprocessor_config.json": preprocessor.to_json()}}
        named = {LABEL_FILE: labels}
        others = partial(pictures, preprocessor, calibration=True)
        return Source(predict, write_onnx, evaluation, named, assets, others, module)

    def evaluation(self) -> Evaluation:
        return _digits(DIGITS_PREPROCESSOR)

    def score(self, outputs: Arrays, evaluation: Evaluation, source: Arrays | None = None) -> dict[str, float]:
        first = outputs["probabilities"].argmax(axis=1)
        if "digit" in evaluation.truth:
            return {"top1_accuracy": float((first == evaluation.truth["digit"]).mean())}
        return {"top1_agreement": float((first == evaluation.truth["source_class"]).mean())}

    def interpret(self, outputs: Arrays, labels: Sequence[str] = ()) -> list[str]:
        """The first label with its probability, then the runners-up above 1 %: "7 (98.2 %), then 9 (1.3 %)"."""
        sentences = []
        for row in np.atleast_2d(outputs["probabilities"]):
            names = labels or (
                digits.LABELS if len(row) == len(digits.LABELS) else [f"class {i}" for i in range(len(row))]
            )
            first, *others = [int(index) for index in np.argsort(row)[::-1][:3]]
            named = [f"{names[index]} ({row[index]:.1%})".replace("%", " %") for index in (first, *others)]
            shown = [named[0], *(name for name, index in zip(named[1:], others, strict=True) if row[index] >= 0.01)]
            sentences.append(", then ".join(shown))
        return sentences


def digits_config() -> Any:
    """The configuration of the bundled classifier: MobileNetV2, width 0.5, 128x128, ten labels."""
    from transformers import MobileNetV2Config

    return MobileNetV2Config(
        depth_multiplier=0.5,
        image_size=DIGITS_SIZE,
        classifier_dropout_prob=0.2,
        id2label=dict(enumerate(digits.LABELS)),
        label2id={label: index for index, label in enumerate(digits.LABELS)},
    )


def _network(weights: Weights) -> tuple[Any, Preprocessor, tuple[str, ...]]:
    """The trained classifier, what it sees of a picture, and its labels."""
    if weights.folder is None and weights.custom:
        return efficientnet_lite.load(weights), efficientnet_lite.PREPROCESSOR, efficientnet_lite.labels()
    from transformers import MobileNetV2ForImageClassification

    network: Any
    if weights.folder is None:
        from safetensors.torch import load_file

        network = MobileNetV2ForImageClassification(digits_config())
        missing, unexpected = network.load_state_dict(load_file(DIGITS_WEIGHTS), strict=False)
        if unexpected or any("num_batches_tracked" not in name for name in missing):
            raise RecipeError(
                f"{DIGITS_WEIGHTS.name} does not fit the network: missing {missing}, unexpected {unexpected}"
            )
        preprocessor = DIGITS_PREPROCESSOR
    else:
        _check_architecture(weights.folder)
        network = MobileNetV2ForImageClassification.from_pretrained(weights.folder, use_safetensors=True)
        preprocessor = _preprocessor(weights.folder, network.config.image_size)
    labels = tuple(str(network.config.id2label[index]) for index in range(network.config.num_labels))
    return network, preprocessor, labels


def _digits(preprocessor: Preprocessor, *, calibration: bool = False) -> Evaluation:
    """The held-out digits as this preprocessor sees their pictures; for the calibration some of the training split."""
    if calibration:
        return Evaluation({"pixels": np.stack([preprocessor(picture) for picture in digits.calibration_pictures()])})
    pictures, digit = digits.held_out_pictures()
    return Evaluation({"pixels": np.stack([preprocessor(picture) for picture in pictures])}, {"digit": digit})


def _photographs(preprocessor: Preprocessor, *, calibration: bool = False) -> Evaluation:
    """Parts of photographs as this preprocessor sees them, with their files; for the calibration others."""
    count = photographs.CALIBRATION if calibration else photographs.EVALUATED
    files = photographs.parts(count, seed=int(calibration))
    pixels = np.stack([preprocessor(image) for image in photographs.opened(files)])
    return Evaluation({"pixels": pixels}, requests={"image": np.array(files, object)[:, None]})


def _png_requests() -> dict[str, Array]:
    pictures, _ = digits.held_out_pictures()
    return {"image": np.array([[digits.png(picture)] for picture in pictures], dtype=object)}


def _question() -> Question:
    picture, truth = digits.held_out_png(0)
    return Question("which digit is this?", {"image": np.array([[picture]], dtype=object)}, str(truth))


def _check_architecture(folder: Path) -> None:
    """Refuse another architecture before transformers fills its gaps with random weights."""
    named = json.loads((folder / "config.json").read_text()).get("architectures") or []
    if "MobileNetV2ForImageClassification" not in named:
        raise RecipeError(
            f"{folder.name}/config.json names the architecture {named or 'not at all'}: recipe 'mobilenet_v2' exports "
            "MobileNetV2ForImageClassification",
            file=folder / "config.json",
            field="architectures",
            found=named,
            expected="MobileNetV2ForImageClassification",
        )


def _preprocessor(folder: Path, image_size: int) -> Preprocessor:
    path = folder / "preprocessor_config.json"
    return Preprocessor.from_file(path) if path.is_file() else Preprocessor({"height": image_size, "width": image_size})


def _classifier_class() -> Any:
    """The network with its normalisation and softmax; a class made here because its base needs torch."""
    import torch

    class Classifier(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, network: Any, preprocessor: Preprocessor) -> None:
            super().__init__()
            mean, std = torch.tensor(preprocessor.mean), torch.tensor(preprocessor.std)
            self.network = network
            self.register_buffer("gain", (preprocessor.scale / std).reshape(1, 3, 1, 1))
            self.register_buffer("offset", (-mean / std).reshape(1, 3, 1, 1))

        def forward(self, pixels: Any) -> Any:
            channels_first = pixels.permute(0, 3, 1, 2).to(torch.float32)
            answer = self.network(channels_first * self.gain + self.offset)
            return getattr(answer, "logits", answer).softmax(dim=-1)

    return Classifier
