"""The rain forecast: plausible weather, and probabilities that mean what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.errors import RecipeError
from export.graph import onnx_file
from export.models.rain_forecast import EVALUATION_SEED, READINGS, RainForecast, weather
from export.recipe.measure import Reference
from export.repository.manifest import Manifest

PLAUSIBLE = {
    "temperature_c": (-30, 45),
    "humidity_pct": (1, 100),
    "pressure_hpa": (930, 1060),
    "wind_speed_m_s": (0, 40),
    "cloud_cover_pct": (0, 100),
}


def test_the_weather_is_plausible_and_repeats() -> None:
    readings, rained = weather(EVALUATION_SEED, 2_000)

    assert tuple(readings) == READINGS
    for name, (low, high) in PLAUSIBLE.items():
        assert readings[name].dtype == np.float32
        assert readings[name].shape == (2_000, 1)
        assert low <= readings[name].min() < readings[name].max() <= high
    assert 0.1 < rained.mean() < 0.35
    wet, dry = rained == 1, rained == 0
    assert readings["humidity_pct"][wet].mean() > readings["humidity_pct"][dry].mean() + 5
    assert readings["pressure_hpa"][wet].mean() < readings["pressure_hpa"][dry].mean() - 2
    again, _ = weather(EVALUATION_SEED, 2_000)
    assert all((again[name] == readings[name]).all() for name in READINGS)


def test_figures_are_the_same_at_the_source_and_in_onnx_and_better_than_climate(exported_repository: Path) -> None:
    record = Manifest.read(exported_repository / "rain_forecast")
    assert record is not None
    assert record.stations is not None
    source, onnx = record.stations["source"].accuracy, record.stations["onnx"].accuracy
    assert onnx["brier_score"] == pytest.approx(source["brier_score"], abs=1e-6)
    assert onnx["roc_auc"] == pytest.approx(source["roc_auc"], abs=1e-6)
    rate = RainForecast().evaluation().truth["rained"].mean()
    assert source["brier_score"] < 0.7 * rate * (1 - rate)


def test_the_probability_is_calibrated(exported_repository: Path) -> None:
    reference = Reference.read(exported_repository / "rain_forecast" / "1" / "reference.npz")
    probability = reference.outputs["rain_probability"].ravel()
    rained = reference.evaluation.truth["rained"]

    for low, high in ((0.0, 0.1), (0.1, 0.4), (0.4, 1.0)):
        rows = (probability >= low) & (probability < high)
        assert rows.sum() > 100
        assert rained[rows].mean() == pytest.approx(probability[rows].mean(), abs=0.08)


def test_a_sultry_low_is_wetter_than_a_clear_high(exported_repository: Path) -> None:
    station = onnx_file.session(exported_repository / "rain_forecast" / "1" / "model.onnx")
    hours = {
        "temperature_c": [[14.0], [22.0]],
        "humidity_pct": [[97.0], [35.0]],
        "pressure_hpa": [[992.0], [1028.0]],
        "wind_speed_m_s": [[9.0], [2.0]],
        "cloud_cover_pct": [[100.0], [5.0]],
    }

    outputs = station({name: np.array(values, np.float32) for name, values in hours.items()})

    assert outputs["rain_probability"].shape == (2, 1)
    assert outputs["rain_probability"][0, 0] > 0.6
    assert outputs["rain_probability"][1, 0] < 0.05
    assert RainForecast().interpret({"rain_probability": np.array([[0.834]])}) == ["rain 83 %"]


SCORES = [
    ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75, "one pair of four in the wrong order"),
    ([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1], 0.5, "all tied"),
    ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1.0, "all in order"),
]


@pytest.mark.parametrize(("probability", "rained", "expected", "why"), SCORES, ids=[row[-1] for row in SCORES])
def test_roc_auc(probability: list[float], rained: list[int], expected: float, why: str) -> None:
    from export.recipe.recipe import Evaluation

    evaluation = Evaluation({"x": np.zeros((4, 1))}, {"rained": np.array(rained)})

    figures = RainForecast().score({"rain_probability": np.array(probability)[:, None]}, evaluation)

    assert figures["roc_auc"] == pytest.approx(expected)


def test_other_weights_are_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        RainForecast().resolve("some/where")
    assert (caught.value.field, caught.value.found) == ("weights", "some/where")
