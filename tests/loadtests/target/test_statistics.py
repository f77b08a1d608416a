import pytest
from plain_server import PlainServer
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.service_pb2 import ModelStatistics, ModelStatisticsResponse

from loadtests.target.client import Target
from loadtests.target.statistics import composing_models, difference


def statistics(name="model", *, requests, queue_ms, infer_ms, executions, inferences=None, batches=()):
    stats = ModelStatistics(name=name, version="1", execution_count=executions, inference_count=inferences or requests)
    stats.inference_stats.success.count = requests
    for field, mean_ms in (
        ("queue", queue_ms),
        ("compute_infer", infer_ms),
        ("compute_input", 1),
        ("compute_output", 2),
    ):
        duration = getattr(stats.inference_stats, field)
        duration.count, duration.ns = requests, int(requests * mean_ms * 1e6)
    for size, count in batches:
        stats.batch_stats.add(batch_size=size).compute_infer.count = count
    return stats


def test_difference_of_two_snapshots_is_what_the_window_saw():
    before = statistics(requests=100, queue_ms=50, infer_ms=50, executions=100, batches=[(1, 100)])
    after = statistics(requests=400, queue_ms=20, infer_ms=20, executions=200, batches=[(1, 150), (4, 50)])
    stats = difference([before], [after])
    assert stats is not None
    (step,) = stats.steps
    assert step.requests == 300
    assert step.queue_ms == pytest.approx((400 * 20 - 100 * 50) / 300)
    assert step.mean_batch == 3.0
    assert stats.compute_ms == pytest.approx(step.compute_infer_ms + 3)
    assert dict(step.batch_sizes) == {"1": 50, "4": 50}


def test_answers_of_the_response_cache_are_counted():
    """Triton counts them as successful requests that were never executed."""
    before = statistics(requests=100, queue_ms=1, infer_ms=1, executions=100)
    after = statistics(requests=400, queue_ms=1, infer_ms=1, executions=200, inferences=200)
    before.inference_stats.cache_hit.count, after.inference_stats.cache_hit.count = 50, 250
    stats = difference([before], [after])
    assert stats is not None
    assert (stats.steps[0].requests, stats.steps[0].cached, stats.steps[0].mean_batch) == (300, 200, 1.0)


def test_a_pipeline_adds_up_and_the_slowest_step_gives_the_batch():
    empty = [statistics(name, requests=1, queue_ms=0, infer_ms=0, executions=1) for name in ("pre", "model")]
    after = [
        statistics("pre", requests=101, queue_ms=1, infer_ms=2, executions=101),
        statistics("model", requests=101, queue_ms=3, infer_ms=9, executions=26),
    ]
    stats = difference(empty, after)
    assert stats is not None
    assert [step.model for step in stats.steps] == ["pre", "model"]
    assert stats.queue_ms == pytest.approx(4, rel=0.02)
    assert stats.slowest.model == "model"
    assert stats.mean_batch == 4.0


class Alternating(PlainServer):
    """As behind a balancer: one server has served 100 requests more than the other, whichever answers."""

    more = 0

    def ModelStatistics(self, request, context):  # noqa: N802
        self.more = 100 - self.more
        stats = statistics(requests=1000 + self.more, queue_ms=1, infer_ms=1, executions=5)
        return ModelStatisticsResponse(model_stats=[stats])


def test_statistics_of_several_servers_are_left_out(caplog):
    with Alternating(without=()) as server, Target(server.address, "m") as target:
        assert target.statistics() == target.statistics() == []
    assert len(caplog.records) == 1


def test_no_statistics_no_figures():
    assert difference([], []) is None
    same = statistics(requests=5, queue_ms=1, infer_ms=1, executions=5)
    assert difference([same], [same]) is None


def test_composing_models_are_resolved_through_nested_pipelines():
    def pipeline(name, *steps):
        config = model_config_pb2.ModelConfig(name=name)
        for step in steps:
            config.ensemble_scheduling.step.add(model_name=step)
        return config

    known = {
        "outer": pipeline("outer", "pre", "inner", "pre"),
        "inner": pipeline("inner", "model", "post"),
        **{name: pipeline(name) for name in ("pre", "model", "post")},
    }
    assert composing_models("outer", known.__getitem__) == ["pre", "model", "post"]
    assert composing_models("pre", known.__getitem__) == ["pre"]


def test_an_ensemble_of_itself_or_without_end_counts_as_one_model():
    def config_of(name):
        config = model_config_pb2.ModelConfig(name=name)
        config.ensemble_scheduling.step.add(model_name=name if name == "snake" else f"{name}x")
        return config

    assert composing_models("snake", config_of) == ["snake"]
    assert composing_models("endless", config_of) == ["endless"]


def test_a_mix_counts_each_step_as_often_as_it_is_asked():
    """Three of four requests go to `quick`, one to `slow`: the mean request is a quarter of the one, not both."""
    empty = [statistics(name, requests=1, queue_ms=0, infer_ms=0, executions=1) for name in ("quick", "slow")]
    after = [
        statistics("quick", requests=301, queue_ms=1, infer_ms=1, executions=301),
        statistics("slow", requests=101, queue_ms=9, infer_ms=40, executions=101),
    ]
    stats = difference(empty, after, {"quick": 0.75, "slow": 0.25})
    assert stats is not None
    assert stats.queue_ms == pytest.approx(0.75 * 1 + 0.25 * 9, rel=0.02)
    assert stats.compute_ms == pytest.approx(0.75 * 4 + 0.25 * 43, rel=0.02)
    assert stats.slowest.model == "slow"
