"""Two real Tritons behind a real HAProxy, for all tests of this folder that need them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from balancer import TOKEN, Balancer, Fleet
from replica import Replica
from small_models import write_double

CONFIG = """
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
dynamic_batching { default_queue_policy { max_queue_size: 256 } }
instance_group [ { count: 2 kind: KIND_CPU } ]
model_warmup [
  { name: "one" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 2 ] zero_data: true } } }
]
"""


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    write_double(folder / "models" / "double", CONFIG)
    replicas = (
        Replica("triton-a", folder / "models", folder, drain_s=1.5, token=TOKEN),
        Replica("triton-b", folder / "models", folder, drain_s=1.5, token=TOKEN),
    )
    balancer = Balancer(replicas, folder / "haproxy")
    try:
        for replica in replicas:
            replica.start(wait=False)
        for replica in replicas:
            replica.await_ready()
        balancer.start()
        yield Fleet(replicas, balancer)
    finally:
        balancer.close()
        for replica in replicas:
            replica.close()


@pytest.fixture
def healthy(fleet: Fleet) -> Fleet:
    """The fleet with both servers in use, started again where the test before left one dead."""
    for replica in fleet.replicas:
        fleet.bring_back(replica)
    return fleet
