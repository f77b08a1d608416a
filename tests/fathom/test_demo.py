"""`fathom demo --all`: every system exported, asked, judged and searched; one that cannot be says why."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scale_model import SCALE_CONFIG, Scale

from export import recipes
from export.errors import RecipeError
from export.recipe.recipe import Weights
from export.recipe.system import Question, System
from fathom.commands.demo import systems_table
from fathom.demo import Demo, DemoResult

pytestmark = pytest.mark.process

AROUND = """
platform: "ensemble"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] } ]
ensemble_scheduling { step [ {
  model_name: "scale" model_version: -1
  input_map { key: "x" value: "x" }
  output_map { key: "y" value: "y" }
} ] }
"""


class Doubled(Scale):
    """The small model with an ensemble around it, and as it is under an SLO that nothing meets."""

    def __init__(self) -> None:
        super().__init__(Path(__file__))

    @property
    def systems(self) -> tuple[System, ...]:
        def question() -> Question:
            return Question("twice 1, 2 and 3", {"x": np.array([[1, 2, 3]], np.float32)}, "2, 4, 6")

        def requests() -> dict[str, np.ndarray]:
            return dict(self.evaluation().inputs)

        return (
            System("around", (), requests, question, slos=("p99=5s",)),
            System("scale", (), requests, question, lambda outputs: ["doubled"], False, ("p99=0.1us",)),
        )


class Elsewhere(Doubled):
    """Its package is not installed."""

    name = "elsewhere"

    def resolve(self, weights: str | None) -> Weights:
        raise RecipeError("the weights are in a package that is not installed", remedy="pip install elsewhere")

    @property
    def systems(self) -> tuple[System, ...]:
        return tuple(System("far", (), each.requests, each.question) for each in super().systems[:1])


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    """What `fathom demo --all` shows where these two recipes are all there are."""
    folder = tmp_path_factory.mktemp("demo")
    for name, config in (("scale", SCALE_CONFIG), ("around", AROUND)):
        (folder / "models" / name / "1").mkdir(parents=True)
        (folder / "models" / name / "config.pbtxt").write_text(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "_CLASSES", {"scale": (__name__, "Doubled"), "elsewhere": (__name__, "Elsewhere")})
        demo = Demo(("scale", "elsewhere"), folder / "models", folder / "results", budget_s=1.0, tolerant=True)
        return demo.run()


def test_a_system_is_asked_judged_and_searched(shown: DemoResult) -> None:
    around = shown.systems[0]
    assert (around.system.name, around.answer, around.truth) == ("around", "[2. 4. 6.]", "2, 4, 6")
    assert around.latency_ms is not None
    assert around.latency_ms > 0
    assert not around.reason
    stations = shown.models["scale"]
    assert list(stations) == ["source", "onnx", "served", "pipeline"]
    assert {measured.accuracy["hit_rate"] for measured in stations.values()} == {1.0}
    assert [str(slo) for slo in shown.capacities["around"].slos] == ["p99=5s"]


def test_one_that_cannot_meet_its_slo_is_shown_as_far_as_it_went(shown: DemoResult) -> None:
    alone = shown.systems[1]
    assert (alone.system.name, alone.answer, alone.capacity) == ("scale", "doubled", None)
    assert "p99=0.1us" in alone.reason


def test_one_without_its_package_is_a_row_with_the_remedy(shown: DemoResult) -> None:
    assert shown.systems[2].to_json() == {
        "system": "far",
        "recipe": "elsewhere",
        "reason": "the weights are in a package that is not installed: pip install elsewhere",
    } | dict.fromkeys(("question", "answer", "truth", "latency_ms", "weights", "licence", "trained_here"))
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(systems_table(shown))
    (row,) = (line for line in console.export_text().splitlines() if line.startswith("far"))
    assert "pip install elsewhere" in row
