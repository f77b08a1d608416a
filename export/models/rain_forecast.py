"""Will it rain within the hour? Gradient boosting from scikit-learn over five readings, trained on generated weather.

The weather is made from a seed: a season and a time of day set temperature and the moisture that the air can hold,
passing lows bring wind, moisture and cloud, and the chance of rain follows humidity, cloud and pressure. Readings
have the resolution of real instruments (0.1 degree, 1 %), which also keeps every threshold of the trees away from any
value that occurs, so that single and double precision take the same branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from export.errors import RecipeError
from export.precision.trees import WHY_NOT_REDUCED
from export.recipe.limits import Figure, Tolerance
from export.recipe.recipe import BUNDLED, Array, Arrays, Evaluation, Recipe, Source, Weights
from export.recipe.system import Question, System

READINGS = ("temperature_c", "humidity_pct", "pressure_hpa", "wind_speed_m_s", "cloud_cover_pct")
TRAINING_SEED, TRAINING_HOURS = 20_260_101, 20_000
EVALUATION_SEED, EVALUATION_HOURS = 20_260_102, 2_000


class RainForecast(Recipe):
    """Five readings FP32 [N, 1] each -> `rain_probability` FP32 [N, 1]."""

    name = "rain_forecast"
    summary = "chance of rain (scikit-learn gradient boosting)"
    figures = (
        Figure("brier_score", "mean squared error of the probability (0 is perfect)", 1e-6, higher_is_better=False),
        Figure("roc_auc", "chance that a wet hour is given a higher probability than a dry one", tolerance=1e-6),
    )
    tolerance = Tolerance(max_abs=1e-5, min_cosine=0.999999)
    packages: ClassVar[tuple[str, ...]] = ("numpy", "scikit-learn", "skl2onnx")
    why_not_reduced = WHY_NOT_REDUCED

    @property
    def systems(self) -> tuple[System, ...]:
        """The model itself, since it takes readings as they are."""
        return (System(self.name, (), lambda: self.evaluation().inputs, _question, judged=False),)

    def resolve(self, weights: str | None) -> Weights:
        if weights not in (None, BUNDLED):
            raise RecipeError(
                f"--weights {weights}: rain_forecast is trained at export and takes no other weights",
                field="weights",
                found=weights,
            )
        description = "trained at export on generated weather"
        return Weights(description, {}, explicit=weights is not None, licence="Apache-2.0", trained_here=True)

    def load(self, weights: Weights) -> Source:
        from sklearn.ensemble import HistGradientBoostingClassifier

        readings, rained = weather(TRAINING_SEED, TRAINING_HOURS)
        trees = HistGradientBoostingClassifier(max_iter=120, max_leaf_nodes=15, learning_rate=0.08, random_state=0)
        trees.fit(_matrix(readings), rained)

        def predict(arrays: Arrays) -> dict[str, Array]:
            return {"rain_probability": trees.predict_proba(_matrix(arrays))[:, 1:].astype(np.float32)}

        return Source(predict, lambda path: _write_onnx(trees, path), self.evaluation())

    def evaluation(self) -> Evaluation:
        readings, rained = weather(EVALUATION_SEED, EVALUATION_HOURS)
        return Evaluation(readings, {"rained": rained})

    def score(self, outputs: Arrays, evaluation: Evaluation, source: Arrays | None = None) -> dict[str, float]:
        probability = outputs["rain_probability"].astype(np.float64).ravel()
        rained = evaluation.truth["rained"]
        return {"brier_score": float(((probability - rained) ** 2).mean()), "roc_auc": _roc_auc(probability, rained)}

    def interpret(self, outputs: Arrays, labels: Sequence[str] = ()) -> list[str]:
        """The chance in percent: "rain 83 %"."""
        return [f"rain {probability * 100:.0f} %" for probability in outputs["rain_probability"].ravel()]


def weather(seed: int, hours: int) -> tuple[dict[str, Array], Array]:
    """Generated readings, FP32 [hours, 1] by name, and whether it rained within the hour, INT64 [hours]."""
    random = np.random.default_rng(seed)
    season, hour = random.uniform(0, 2 * np.pi, hours), random.uniform(0, 2 * np.pi, hours)
    low = random.gamma(1.6, 0.55, hours)  # strength of a passing low; 0 is settled weather
    cloud = 100 / (1 + np.exp(-(1.9 * low - 2.2 + random.normal(0, 1.1, hours))))
    pressure = 1020 - 9.5 * low + random.normal(0, 4.0, hours)
    # Cloud flattens the daily swing of temperature.
    swing = 5.5 * (1 - 0.6 * cloud / 100)
    temperature = 10.5 - 9.5 * np.cos(season) - swing * np.cos(hour) + random.normal(0, 2.6, hours)
    depression = np.clip(
        random.gamma(2.2, 2.6, hours) * (1.15 - 0.75 * cloud / 100), 0.1, 25
    )  # dew point below temperature
    dew_point = temperature - depression
    humidity = 100 * np.exp(17.62 * dew_point / (243.12 + dew_point) - 17.62 * temperature / (243.12 + temperature))
    wind = random.weibull(2.0, hours) * (3.0 + 2.4 * low)
    logit = 0.085 * (humidity - 84) + 0.038 * (cloud - 70) - 0.11 * (pressure - 1008) + 0.05 * (wind - 6)
    rained = random.uniform(size=hours) < 1 / (1 + np.exp(-logit))
    columns = {
        "temperature_c": np.round(temperature, 1),
        "humidity_pct": np.round(np.clip(humidity, 1, 100)),
        "pressure_hpa": np.round(pressure, 1),
        "wind_speed_m_s": np.round(wind, 1),
        "cloud_cover_pct": np.round(np.clip(cloud, 0, 100)),
    }
    return {name: columns[name].astype(np.float32)[:, None] for name in READINGS}, rained.astype(np.int64)


def _question() -> Question:
    """A wet day, in the order of READINGS."""
    readings = dict(zip(READINGS, (9.0, 97.0, 996.0, 8.0, 100.0), strict=True))
    inputs = {name: np.full((1, 1), value, np.float32) for name, value in readings.items()}
    return Question("9 °C, 97 % humidity, 996 hPa, a fresh breeze, overcast: will it rain within the hour?", inputs)


def _matrix(readings: Arrays) -> Array:
    return np.concatenate([np.asarray(readings[name], np.float32).reshape(-1, 1) for name in READINGS], axis=1)


def _write_onnx(trees: Any, path: Path) -> None:
    """The trees as ONNX: named readings joined in front, the second class's probability cut out behind, no ZipMap."""
    import onnx
    from onnx import TensorProto, helper
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    from export.graph.onnx_file import OPSET, clean, quiet

    with quiet():
        model = convert_sklearn(
            trees,
            name="rain_forecast",
            initial_types=[("readings", FloatTensorType([None, len(READINGS)]))],
            options={id(trees): {"zipmap": False}},
            target_opset={"": OPSET, "ai.onnx.ml": 3},
        )
    graph = model.graph
    both = next(output.name for output in graph.output if output.name == "probabilities")
    join = helper.make_node("Concat", list(READINGS), ["readings"], axis=1, name="join_readings")
    cut = helper.make_node("Gather", [both, "rain_class"], ["rain_probability"], axis=1, name="probability_of_rain")
    nodes = [join, *graph.node, cut]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.append(helper.make_tensor("rain_class", TensorProto.INT64, [1], [1]))
    tensor = helper.make_tensor_value_info
    graph.input.extend(tensor(name, TensorProto.FLOAT, ["batch", 1]) for name in READINGS)
    graph.output.append(tensor("rain_probability", TensorProto.FLOAT, ["batch", 1]))
    clean(model)
    onnx.save(model, str(path))
    onnx.checker.check_model(str(path))


def _roc_auc(score: Array, positive: Array) -> float:
    """Area under the ROC curve by ranks, ties counted half (Mann and Whitney's U over the number of pairs)."""
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    wet = int(positive.sum())
    dry = len(positive) - wet
    return float((ranks[positive == 1].sum() - wet * (wet + 1) / 2) / (wet * dry))
