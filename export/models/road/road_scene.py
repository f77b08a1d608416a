"""The detector behind `road_scene`: what is on the road in a camera's frame, and where.

The bundled one is small and was trained on rendered frames (`train`). With `--weights` others are exported
by the same code, at their own sizes and with their own classes: one of transformers that gives a box and class scores
for each of its queries (YOLOS, DETR), or that of `ssd_mobilenet`. All end in the same suppression, inside the graph.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from export.errors import RecipeError
from export.graph.labels import FILE as LABEL_FILE
from export.models.pictures.images import Preprocessor
from export.models.road import detections, road_frames, road_network, ssd_mobilenet
from export.models.road.road_frames import FIRST_HELD_OUT, LABELS
from export.precision.precision import FP16, INT8
from export.recipe import weight_files
from export.recipe.limits import Figure, Reduced, Tolerance
from export.recipe.recipe import BUNDLED, Array, Arrays, Evaluation, Recipe, Source, Weights
from export.recipe.system import Question, System

WEIGHTS = Path(__file__).with_name("road_scene.safetensors")
PREPROCESSOR = Preprocessor(
    size={"height": road_network.HEIGHT, "width": road_network.WIDTH}, mean=(0.0,) * 3, std=(1.0,) * 3
)
COMPANION = "road_scene_pixels"
FRAMES = 120
CALIBRATION_FRAMES = 40
ASKED = 26
"""The held-out frame of the question."""
SHOWN_SCORE = 0.4
"""Of the detections that a person reads."""
_ANYWHERE = Tolerance(max_abs=np.inf, min_cosine=-1.0)
"""The figures judge: a detection on the edge of the suppression comes or goes, and moves all scores behind it."""
_ARCHITECTURE = "ForObjectDetection"


class RoadScene(Recipe):
    """`pixels` UINT8 [N, height, width, 3] -> the detections of `export.models.road.detections`, best first."""

    name = "road_scene_detector"
    summary = "road scene detector (rendered frames, suppression in the graph)"
    figures = (
        Figure("map50", f"mean average precision at IoU 0.5 on {FRAMES} held-out rendered frames", tolerance=0.005),
        Figure(
            "found_again",
            "share of the source's detections that are found at the same place (IoU 0.9), of the same class",
            tolerance=0.01,
        ),
    )
    tolerance = _ANYWHERE
    reduced: ClassVar[Mapping[str, Reduced]] = {
        FP16: Reduced(_ANYWHERE, {"found_again": 0.02}, keep_float=detections.SUPPRESSION_NODES),
        INT8: Reduced(_ANYWHERE, {"map50": 0.02, "found_again": 0.15}),
    }
    not_compared: ClassVar[frozenset[str]] = frozenset({detections.BOXES, detections.CLASSES})
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "pillow")
    companions = (COMPANION,)

    @property
    def systems(self) -> tuple[System, ...]:
        """`image` BYTES [N, 1], each a JPEG file, through road_scene_pixels."""
        return (System("road_scene", (COMPANION,), _jpeg_requests, _question),)

    def resolve(self, weights: str | None) -> Weights:
        if weights not in (None, BUNDLED):
            if (Path(weights) / ssd_mobilenet.FILE).is_file():
                return ssd_mobilenet.weights(Path(weights).resolve())
            return weight_files.find(weights, needs=("config.json", "preprocessor_config.json"))
        return weight_files.trained_here(WEIGHTS, "python -m export.models.road.train", explicit=weights is not None)

    def load(self, weights: Weights) -> Source:
        import torch

        module: Any
        if weights.folder is None:
            network = road_network.build(len(LABELS))
            _fill(network, WEIGHTS)
            module, preprocessor, labels = road_network.detector(network.eval()), PREPROCESSOR, LABELS
        elif ssd_mobilenet.FILE in weights.files:
            module, preprocessor, labels = ssd_mobilenet.load(weights.folder)
        else:
            module, preprocessor, labels = _transformers(weights.folder)
        pixels = torch.zeros(2, *preprocessor.height_width, 3, dtype=torch.uint8)
        with torch.inference_mode():
            places = int(module(pixels).shape[1])

        def predict(arrays: Arrays) -> dict[str, Array]:
            with torch.inference_mode():
                given = torch.from_numpy(np.ascontiguousarray(arrays["pixels"]))
                return detections.suppress(module(given).numpy())

        def write_onnx(path: Path) -> None:
            from export.graph.onnx_file import write_torch

            write_torch(module, {"pixels": pixels}, {"pixels": {0: "batch"}}, detections.CANDIDATES, path)
            detections.append_suppression(path, len(labels), places)

        return Source(
            predict,
            write_onnx,
            _evaluation(preprocessor, judged=not weights.custom),
            assets={COMPANION: {"1/preprocessor_config.json": preprocessor.to_json()}},
            calibration=lambda: _calibration(preprocessor),
            module=module,
            files={f"1/{LABEL_FILE}": "".join(f"{label}\n" for label in labels).encode()},
        )

    def evaluation(self) -> Evaluation:
        return _evaluation(PREPROCESSOR, judged=True)

    def score(self, outputs: Arrays, evaluation: Evaluation, source: Arrays | None = None) -> dict[str, float]:
        figures = {}
        if "frames" in evaluation.truth:
            figures["map50"] = detections.mean_average_precision(outputs, evaluation.truth)
        if source is not None:
            figures["found_again"] = detections.found_again(outputs, source)
        return figures

    def interpret(self, outputs: Arrays, labels: Sequence[str] = LABELS) -> list[str]:
        """What is there, best first, and where its box is, as shares: "car (98 %) at 0.10-0.32, 0.51-0.77"."""
        sentences = []
        rows = (np.asarray(outputs[name]) for name in (detections.BOXES, detections.SCORES, detections.CLASSES))
        for boxes, scores, classes in zip(*rows, strict=True):
            shown = [
                f"{labels[kind] if kind < len(labels) else f'class {kind}'} ({score:.0%})".replace("%", " %")
                + f" at {left:.2f}-{right:.2f}, {top:.2f}-{bottom:.2f}"
                for (left, top, right, bottom), score, kind in zip(boxes, scores, classes, strict=True)
                if score >= SHOWN_SCORE
            ]
            sentences.append("; ".join(shown) or "nothing on the road")
        return sentences


@functools.cache
def held_out() -> tuple[tuple[bytes, ...], Mapping[str, Array]]:
    """FRAMES JPEG files that were never trained on, and their truth (see `detections.mean_average_precision`)."""
    frames = [road_frames.frame(FIRST_HELD_OUT + number) for number in range(FRAMES)]
    truth = {
        detections.BOXES: np.concatenate([each.boxes for each in frames]),
        detections.CLASSES: np.concatenate([each.classes for each in frames]),
        "frames": np.repeat(np.arange(FRAMES), [len(each.boxes) for each in frames]),
    }
    return tuple(road_frames.jpeg(each.image) for each in frames), truth


def _evaluation(preprocessor: Preprocessor, *, judged: bool) -> Evaluation:
    """The held-out frames as this preprocessor sees them, with their truth where the classes are ours."""
    files, truth = held_out()
    pixels = np.stack([preprocessor(road_frames.opened(file)) for file in files])
    return Evaluation({"pixels": pixels}, truth if judged else {})


def _calibration(preprocessor: Preprocessor) -> Evaluation:
    """Frames of the training as this preprocessor sees them."""
    frames = [road_frames.frame(number).image for number in range(CALIBRATION_FRAMES)]
    return Evaluation({"pixels": np.stack([preprocessor(image) for image in frames])})


def _jpeg_requests() -> dict[str, Array]:
    return {"image": np.array([[file] for file in held_out()[0]], dtype=object)}


def _question() -> Question:
    files, truth = held_out()
    named = [LABELS[kind] for kind in truth[detections.CLASSES][truth["frames"] == ASKED]]
    counted = ", ".join(f"{named.count(label)} {label}" for label in dict.fromkeys(named))
    return Question("what is on the road in this frame?", {"image": np.array([[files[ASKED]]], object)}, counted)


def _fill(network: Any, path: Path) -> None:
    """Put weights that are kept in half precision into the network. Raises RecipeError where they are another's."""
    from safetensors.torch import load_file

    missing, unexpected = network.load_state_dict(load_file(path), strict=False)
    if unexpected or any("num_batches_tracked" not in name for name in missing):
        raise RecipeError(f"{path.name} does not fit the network: missing {missing}, unexpected {unexpected}")


def _transformers(folder: Path) -> tuple[Any, Preprocessor, tuple[str, ...]]:
    """A detector of transformers as a module of candidates, its preprocessor and its classes."""
    import torch
    from transformers import AutoModelForObjectDetection

    config = json.loads((folder / "config.json").read_text())
    named = config.get("architectures") or []
    if not any(name.endswith(_ARCHITECTURE) for name in named):
        raise RecipeError(
            f"{folder.name}/config.json names the architecture {named or 'not at all'}: recipe 'road_scene_detector' "
            f"exports detectors, whose names end in {_ARCHITECTURE}",
            file=folder / "config.json",
            field="architectures",
            found=named,
            expected=_ARCHITECTURE,
        )
    network = AutoModelForObjectDetection.from_pretrained(folder, use_safetensors=True).eval()
    preprocessor = _preprocessor(folder, network.config)
    labels = tuple(str(network.config.id2label[index]) for index in range(network.config.num_labels))
    mean, std = torch.tensor(preprocessor.mean), torch.tensor(preprocessor.std)

    class Detector(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.register_buffer("gain", (preprocessor.scale / std).reshape(1, 3, 1, 1))
            self.register_buffer("offset", (-mean / std).reshape(1, 3, 1, 1))

        def forward(self, pixels: Any) -> Any:
            given = pixels.permute(0, 3, 1, 2).to(torch.float32) * self.gain + self.offset
            found = self.network(pixel_values=given)
            logits = found.logits
            # With a class for nothing behind the others they compete; without, each has its own probability.
            competing = logits.shape[-1] > len(labels)
            scores = logits.softmax(-1)[..., :-1] if competing else logits.sigmoid()
            middle, half = found.pred_boxes[..., :2], found.pred_boxes[..., 2:] / 2
            return torch.cat([(middle - half).clamp(0, 1), (middle + half).clamp(0, 1), scores], dim=-1)

    return Detector().eval(), preprocessor, labels


def _preprocessor(folder: Path, config: Any) -> Preprocessor:
    """The processor's own normalisation, at one size: that of the network where it has one, else 640x640."""
    side = getattr(config, "image_size", None) or 640
    height, width = (side, side) if isinstance(side, int) else side
    fixed = {"height": int(height), "width": int(width)}
    return Preprocessor.from_file(folder / "preprocessor_config.json", fixed=fixed)
